"""The actions that pump: one run, a sequence of them, a circulation."""
