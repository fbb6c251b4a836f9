//! The names of `src/primitive.rs`, with loom's types behind them.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{Ordering, fence};
