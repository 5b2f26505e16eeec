//! Normalised events in time-partitioned Parquet: kept, searched, hunted through.
