"""Plugins: code of others that adds jobs to a unit.

- :mod:`~piod.plugins.plugins`: what is installed; installing and uninstalling;
- :mod:`~piod.plugins.registry`: the jobs of a unit, built in and added;
- :mod:`~piod.plugins.loading`: one plugin, loaded so that its failure is its own;
- :mod:`~piod.plugins.rules`: what a job must look like to be added;
- :mod:`~piod.plugins.requests`: what may be installed, and who forbids it;
- :mod:`~piod.plugins.packages`: the port to who installs packages, with
  :mod:`~piod.plugins.pip_installer` and :mod:`~piod.plugins.simulated` behind it.
"""
