//! Real-time signals that carry a value.

use super::super::control::Control;
use super::super::link::{Link, Outcome};
use crate::os::bare;

/// One end: the other process.
pub(super) struct SignalLink<'a>(&'a Control);

impl<'a> SignalLink<'a> {
    pub(super) fn new(control: &'a Control) -> Outcome<SignalLink<'a>> {
        bare::signal_block()?;
        Ok(SignalLink(control))
    }
}

impl Link for SignalLink<'_> {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        let mut payload = [0; 8];
        payload[..message.len()].copy_from_slice(message);
        Ok(bare::signal_send(
            self.0.peer(),
            u64::from_le_bytes(payload),
        )?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let payload = bare::signal_recv()?.to_le_bytes();
        let len = into.len();
        into.copy_from_slice(&payload[..len]);
        Ok(len)
    }
}
