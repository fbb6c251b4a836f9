//! The barrier over all processors: it spares a fence on one side of a protocol by making it from the
//! other side, which needs it rarely.

use super::check;

fn call(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes three integers and accesses no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }).is_ok()
}

/// Makes this process take part in the barriers of others; false where the kernel cannot, or may not.
/// The first call of a process with several threads takes some milliseconds.
pub(crate) fn register() -> bool {
    call(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED)
}

/// A full fence on every processor that runs a thread of a process which takes part, and here; false
/// where the kernel cannot, or may not.
pub(crate) fn all() -> bool {
    call(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_that_can_take_part_can_make_barriers() {
        assert_eq!(super::register(), super::all());
    }
}
