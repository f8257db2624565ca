"""Time detectors beside each other: any engine, precision and number of threads, each in a process of its own."""
