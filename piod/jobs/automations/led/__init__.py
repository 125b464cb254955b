"""The automations of ``led_automation``."""
