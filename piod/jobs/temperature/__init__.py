"""The calculations of temperature: :mod:`.inference` of the liquid from a cooling heater board."""
