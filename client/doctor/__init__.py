"""`fedmri-site doctor`: every condition for taking part, checked one by one."""
