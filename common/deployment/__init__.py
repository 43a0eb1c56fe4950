"""Programs kept alive, and the commands of Flower."""
