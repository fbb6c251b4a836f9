//! The algorithms, over borrowed views of shared memory. Nothing in here calls the operating system,
//! and every access to shared memory goes through `crate::primitive`.

pub(crate) mod broadcast;
pub(crate) mod items;
pub(crate) mod mpmc;
pub(crate) mod record;
pub(crate) mod seat;
pub(crate) mod spsc;
