"""The automations that come with piod: a package for each family, a module for each automation."""
