"""The dosing automations that piod brings: one module each."""
