"""What the screens show, read from disk in threads and handed over as frozen snapshots. No terminal here."""
