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
    (
        # One row an experiment; vial_turn is highest where the vial was changed last.
        """
        CREATE TABLE volumes (
            experiment TEXT PRIMARY KEY,
            current_volume_ml REAL NOT NULL,
            lowest_ml REAL NOT NULL,
            highest_ml REAL NOT NULL,
            efflux_tube_volume_ml REAL NOT NULL,
            alt_media_fraction REAL NOT NULL,
            cumulative_media_added_ml REAL NOT NULL,
            cumulative_alt_media_added_ml REAL NOT NULL,
            cumulative_waste_removed_ml REAL NOT NULL,
            doubt TEXT,
            vial_turn INTEGER NOT NULL,
            updated_at TEXT NOT NULL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE doses (
            dose_number INTEGER PRIMARY KEY AUTOINCREMENT,
            dose_id TEXT NOT NULL UNIQUE,
            experiment TEXT NOT NULL,
            job_name TEXT NOT NULL,
            job_id TEXT NOT NULL,
            role TEXT NOT NULL,
            source TEXT NOT NULL,
            state TEXT NOT NULL,
            admitted_at TEXT NOT NULL,
            planned_s REAL NOT NULL,
            planned_ml REAL NOT NULL,
            planned_most_ml REAL NOT NULL,
            ended_at TEXT,
            moved_least_ml REAL,
            moved_ml REAL,
            moved_most_ml REAL
        )
        """,
        "CREATE INDEX doses_under_way ON doses (dose_id) WHERE state = 'intended'",
    ),
    (
        """
        CREATE TABLE sessions (
            session_id TEXT PRIMARY KEY,
            protocol_name TEXT NOT NULL,
            target_device TEXT NOT NULL,
            status TEXT NOT NULL,
            step_id TEXT NOT NULL,
            data TEXT NOT NULL,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            result TEXT,
            error TEXT,
            saves TEXT NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    ("ALTER TABLE volumes ADD COLUMN tube_source TEXT",),
)
