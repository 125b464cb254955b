"""What the dosing automations are made of: signals, exchanges of liquid."""
