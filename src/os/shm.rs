//! Shared memory: where a ring's descriptor comes from.
