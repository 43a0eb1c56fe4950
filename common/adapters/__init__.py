"""What is trained on a frozen backbone: one file for each adapter, one line for each in the registry."""
