"""The automations of ``temperature_automation``."""
