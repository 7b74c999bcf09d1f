//! Starts executions, moves them on, and tells how they stand.
