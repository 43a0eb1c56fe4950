"""What is asked of frozen features: one file a protocol, one line in `registry`. `fedmri-sim protocols` runs them all."""
