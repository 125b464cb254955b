"""The tables of the ledger.

Step n leads from schema version n to n + 1. A step that has been released is
never edited, and a new one only adds: tables, indexes, columns with a default
or NULL. So an older piod still works on the file after a downgrade: every
statement of the ledger names the columns it uses.
"""

from __future__ import annotations

SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        # AUTOINCREMENT: an id is never given twice, also after its row is pruned.
        """
        CREATE TABLE jobs (
            job_id INTEGER PRIMARY KEY AUTOINCREMENT,
            unit TEXT NOT NULL,
            experiment TEXT NOT NULL,
            job_name TEXT NOT NULL,
            job_source TEXT NOT NULL,
            started_at TEXT NOT NULL,
            leader TEXT NOT NULL,
            pid INTEGER NOT NULL,
            is_long_running_job INTEGER NOT NULL,
            ended_at TEXT,
            state TEXT NOT NULL,
            options TEXT NOT NULL,
            config_overrides TEXT NOT NULL,
            reason TEXT
        )
        """,
        # No foreign key: settings come in batches, in no fixed order with their job's row.
        """
        CREATE TABLE settings (
            job_id INTEGER NOT NULL,
            setting TEXT NOT NULL,
            value TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            PRIMARY KEY (job_id, setting)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE tasks (
            task_id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            lock TEXT,
            status TEXT NOT NULL,
            result TEXT NOT NULL,
            error TEXT,
            cause TEXT,
            remediation TEXT,
            error_status INTEGER,
            created_at TEXT NOT NULL,
            finished_at TEXT
        )
        """,
        "CREATE INDEX tasks_by_finished_at ON tasks (finished_at)",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        """
        CREATE TABLE memory (
            experiment TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            PRIMARY KEY (experiment, key)
        ) WITHOUT ROWID
        """,
    ),
)
