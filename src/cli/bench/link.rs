//! A mechanism under test, seen from one of its two ends.

/// What goes wrong while measuring, in words.
pub(crate) type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// The result of one step of a measurement.
pub(crate) type Outcome<T> = Result<T, Trouble>;

/// One end of a two-way connection between two processes.
///
/// Every message of a repetition has the same length, which both ends know; a mechanism without
/// boundaries needs no framing then, and pays for none. What is received is copied to memory of the
/// receiver's own, as `read` does: a ring that could be read in place gets no head start here.
pub(crate) trait Link {
    /// Sends one message; waits while there is no room.
    fn send(&mut self, message: &[u8]) -> Outcome<()>;

    /// Receives one message into `into`, which has its length; waits while there is none.
    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize>;

    /// Sends several messages in the way that costs least.
    fn send_batch(&mut self, messages: &[Vec<u8>]) -> Outcome<()> {
        messages.iter().try_for_each(|message| self.send(message))
    }

    /// Receives from one to `max` messages, showing each; returns how many.
    fn recv_batch(
        &mut self,
        _max: usize,
        into: &mut [u8],
        see: &mut impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<usize> {
        let len = self.recv(into)?;
        see(&into[..len])?;
        Ok(1)
    }
}
