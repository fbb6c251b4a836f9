//! The peers, each driven the way its authors recommend where speed matters: bounded queues of the
//! same number of slots, polled without sleeping where the peer leaves that to its user.

#![expect(
    non_local_definitions,
    reason = "each peer is one function, with how its ends are driven inside it"
)]

use std::hint::spin_loop;

use crate::stage::{Mode, Outcome, Rx, Tx, forked, message, processes, threads};

/// How many messages a queue holds: 64 KiB of 64-byte messages.
const SLOTS: usize = 1024;

/// A peer: its name, what it joins, and how to run a repetition.
pub struct Peer {
    pub name: &'static str,
    /// "processes" or "threads".
    pub joins: &'static str,
    pub run: fn(Mode, u64, usize) -> Option<Outcome>,
}

macro_rules! sizes {
    ($run:ident) => {
        |mode, count, size| match size {
            8 => $run::<8>(mode, count),
            64 => $run::<64>(mode, count),
            _ => $run::<1024>(mode, count),
        }
    };
}

macro_rules! peer {
    ($name:literal, $joins:literal, $run:ident) => {
        Peer {
            name: $name,
            joins: $joins,
            run: sizes!($run),
        }
    };
}

/// All of them, ours first.
pub const PEERS: &[Peer] = &[
    peer!("ringway", "processes", ringway),
    peer!("ringway broadcast", "processes", ringway_broadcast),
    peer!("rtrb", "threads", rtrb),
    peer!("ringbuf", "threads", ringbuf),
    peer!("crossbeam-queue", "threads", array_queue),
    peer!("crossbeam-channel", "threads", crossbeam_channel),
    peer!("kanal", "threads", kanal),
    peer!("flume", "threads", flume),
    peer!("disruptor", "threads", disruptor),
    peer!("shaq", "processes", shaq),
    peer!("shaq broadcast", "processes", shaq_broadcast),
    peer!("shmem-ipc", "processes", shmem_ipc),
    peer!("iceoryx2", "processes", iceoryx2),
    peer!("ipc-channel", "processes", ipc_channel),
    #[cfg(feature = "aeron")]
    peer!("aeron", "processes", aeron),
];

/// Tries until it succeeds, telling the processor that it waits.
#[inline(always)]
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        spin_loop();
    }
}

fn ringway<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use crate::stage::Role;
    use ringway::spsc::{Config, Consumer, Producer, Ring};
    use ringway::wait::WaitStrategy;
    use std::os::fd::AsFd;
    impl<const N: usize> Tx<N> for Producer {
        fn send(&mut self, message: &[u8; N]) {
            Producer::send(self, message).expect("the consumer is there");
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            let messages = (first..first + count as u64).map(message::<N>);
            Producer::send_batch(self, messages).expect("the consumer is there");
        }
    }
    impl<const N: usize> Rx<N> for Consumer {
        fn recv(&mut self) -> [u8; N] {
            let mut message = [0; N];
            let len = self.recv_into_slice(&mut message);
            assert_eq!(len.expect("the producer is there"), N);
            message
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            // Short ones are read where they lie, which notes nothing of each.
            if N < 64 {
                let whole = "a whole message";
                let seen = self.drain_with(max, |message| see((*message).try_into().expect(whole)));
                if seen > 0 {
                    return seen;
                }
            }
            see(&Rx::recv(self));
            let mut seen = 1;
            for message in self.drain(max - 1) {
                see((*message).try_into().expect("a whole message"));
                seen += 1;
            }
            seen
        }
    }
    let config = || Config::default().wait(WaitStrategy::Spin);
    let (there, back) = (Ring::anonymous(config()), Ring::anonymous(config()));
    let (there, back) = (there.expect("a ring"), back.expect("a ring"));
    processes(mode, count, |party| {
        let attach = |ring: &Ring| {
            let fd = ring.as_fd().try_clone_to_owned().expect("a descriptor");
            Ring::from_fd(fd).expect("the ring is inherited")
        };
        let (out, input) = match party.role {
            Role::Leader => (attach(&there), attach(&back)),
            Role::Follower => (attach(&back), attach(&there)),
        };
        let producer = out.producer().expect("no other producer");
        let consumer = input.consumer().expect("no other consumer");
        party.play::<N>(producer, consumer);
    })
}

/// The ring that every subscriber sees all of, with one; nothing is lost.
fn ringway_broadcast<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use crate::stage::Role;
    use ringway::broadcast::{Config, Producer, Ring, Start, Subscriber};
    use ringway::wait::WaitStrategy;
    use std::os::fd::AsFd;
    impl<const N: usize> Tx<N> for Producer {
        fn send(&mut self, message: &[u8; N]) {
            Producer::send(self, message).expect("the subscriber is there");
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            let messages = (first..first + count as u64).map(message::<N>);
            Producer::send_batch(self, messages).expect("the subscriber is there");
        }
    }
    impl<const N: usize> Rx<N> for Subscriber {
        fn recv(&mut self) -> [u8; N] {
            let message = Subscriber::recv(self).expect("the producer is there");
            (*message).try_into().expect("a whole message")
        }
    }
    let config = || Config::default().wait(WaitStrategy::Spin).expected(1);
    let (there, back) = (Ring::anonymous(config()), Ring::anonymous(config()));
    let (there, back) = (there.expect("a ring"), back.expect("a ring"));
    processes(mode, count, |party| {
        let attach = |ring: &Ring| {
            let fd = ring.as_fd().try_clone_to_owned().expect("a descriptor");
            Ring::from_fd(fd).expect("the ring is inherited")
        };
        let (out, input) = match party.role {
            Role::Leader => (attach(&there), attach(&back)),
            Role::Follower => (attach(&back), attach(&there)),
        };
        let producer = out.producer().expect("no other producer");
        let subscriber = input.subscriber_from(Start::Oldest).expect("a seat");
        party.play::<N>(producer, subscriber);
    })
}

fn rtrb<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    impl<const N: usize> Tx<N> for rtrb::Producer<[u8; N]> {
        fn send(&mut self, message: &[u8; N]) {
            until(|| self.push(*message).ok());
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            loop {
                if let Ok(chunk) = self.write_chunk_uninit(count) {
                    chunk.fill_from_iter((first..first + count as u64).map(message));
                    return;
                }
                spin_loop();
            }
        }
    }
    impl<const N: usize> Rx<N> for rtrb::Consumer<[u8; N]> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.pop().ok())
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            let count = until(|| Some(self.slots().min(max)).filter(|&slots| slots > 0));
            if let Ok(chunk) = self.read_chunk(count) {
                let (first, second) = chunk.as_slices();
                first.iter().chain(second).for_each(see);
                chunk.commit_all();
            }
            count
        }
    }
    threads::<N, _, _>(mode, count, || rtrb::RingBuffer::new(SLOTS))
}

fn ringbuf<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use ringbuf::traits::{Consumer, Producer, Split};
    use ringbuf::{HeapCons, HeapProd, HeapRb};
    struct Prod<const N: usize>(HeapProd<[u8; N]>);
    struct Cons<const N: usize>(HeapCons<[u8; N]>);
    impl<const N: usize> Tx<N> for Prod<N> {
        fn send(&mut self, message: &[u8; N]) {
            until(|| self.0.try_push(*message).ok());
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            let mut messages = (first..first + count as u64).map(message);
            let mut sent = 0;
            while sent < count {
                sent += self.0.push_iter(&mut messages);
            }
        }
    }
    impl<const N: usize> Rx<N> for Cons<N> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.0.try_pop())
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            let mut taken = 0;
            while taken == 0 {
                for message in self.0.pop_iter().take(max) {
                    see(&message);
                    taken += 1;
                }
            }
            taken
        }
    }
    threads::<N, _, _>(mode, count, || {
        let (prod, cons) = HeapRb::new(SLOTS).split();
        (Prod(prod), Cons(cons))
    })
}

/// Ends of a queue that both sides hold.
struct Shared<Q>(std::sync::Arc<Q>);

fn array_queue<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use crossbeam_queue::ArrayQueue;
    impl<const N: usize> Tx<N> for Shared<ArrayQueue<[u8; N]>> {
        fn send(&mut self, message: &[u8; N]) {
            until(|| self.0.push(*message).ok());
        }
    }
    impl<const N: usize> Rx<N> for Shared<ArrayQueue<[u8; N]>> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.0.pop())
        }
    }
    threads::<N, _, _>(mode, count, || {
        let queue = std::sync::Arc::new(ArrayQueue::new(SLOTS));
        (Shared(queue.clone()), Shared(queue))
    })
}

/// A channel whose blocking calls spin before they sleep: the authors' own way to wait.
macro_rules! channel {
    ($name:ident, $($path:ident)::+) => {
        fn $name<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
            impl<const N: usize> Tx<N> for $($path)::+::Sender<[u8; N]> {
                fn send(&mut self, message: &[u8; N]) {
                    $($path)::+::Sender::send(self, *message).expect("the receiver is there");
                }
            }
            impl<const N: usize> Rx<N> for $($path)::+::Receiver<[u8; N]> {
                fn recv(&mut self) -> [u8; N] {
                    $($path)::+::Receiver::recv(self).expect("the sender is there")
                }
            }
            threads::<N, _, _>(mode, count, || $($path)::+::bounded(SLOTS))
        }
    };
}

channel!(crossbeam_channel, crossbeam_channel);
channel!(kanal, kanal);
channel!(flume, flume);

fn disruptor<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use disruptor::{BusySpin, Producer};
    struct Prod<P>(P);
    impl<const N: usize, P: Producer<[u8; N]>> Tx<N> for Prod<P> {
        fn send(&mut self, message: &[u8; N]) {
            self.0.publish(|slot| *slot = *message);
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            self.0.batch_publish(count, |slots| {
                for (slot, number) in slots.zip(first..) {
                    *slot = message(number);
                }
            });
        }
    }
    /// Polls for at most a number of messages, showing each; false if there were none.
    struct Poll<F>(F);
    impl<const N: usize, F: FnMut(u64, &mut dyn FnMut(&[u8; N])) -> bool> Rx<N> for Poll<F> {
        fn recv(&mut self) -> [u8; N] {
            let mut found = [0; N];
            while !(self.0)(1, &mut |message| found = *message) {}
            found
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            let mut seen = 0;
            while !(self.0)(max as u64, &mut |message| {
                see(message);
                seen += 1;
            }) {}
            seen
        }
    }
    threads::<N, _, _>(mode, count, || {
        let builder = disruptor::build_single_producer(SLOTS, || [0u8; N], BusySpin);
        let (mut poller, builder) = builder.event_poller();
        let poll = move |max: u64, see: &mut dyn FnMut(&[u8; N])| match poller.poll_take(max) {
            Ok(mut events) => {
                (&mut events).for_each(see);
                true
            }
            Err(_) => false,
        };
        (Prod(builder.build()), Poll(poll))
    })
}

fn shaq<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use shaq::spsc::{Consumer, Producer, minimum_file_size};
    impl<const N: usize> Tx<N> for Producer<[u8; N]> {
        fn send(&mut self, message: &[u8; N]) {
            until(|| self.try_write(*message).ok());
        }

        fn send_batch(&mut self, first: u64, count: usize) {
            let mut number = first;
            let end = first + count as u64;
            while number < end {
                // A batch sees the room there was when it began: a full one is ended, begun anew.
                let mut batch = self.write_batch();
                while number < end && batch.try_write(message(number)).is_ok() {
                    number += 1;
                }
            }
        }
    }
    impl<const N: usize> Rx<N> for Consumer<[u8; N]> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.try_read())
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            let max = std::num::NonZeroUsize::new(max).expect("at least one is wanted");
            loop {
                if let Some(batch) = self.try_reserve_read_batch(max) {
                    batch.iter().for_each(|message| see(message));
                    return batch.len();
                }
                spin_loop();
            }
        }
    }
    forked::<N, _, _>(mode, count, || {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
        let size = minimum_file_size::<[u8; N]>(SLOTS);
        // SAFETY: the file is new and nobody else's; the message type has no invalid bytes.
        unsafe {
            let producer = Producer::create(&file, size).expect("a queue of shaq's");
            let consumer = producer.join_as_consumer().expect("its other end");
            (producer, consumer)
        }
    })
}

fn shaq_broadcast<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use shaq::broadcast::{Broadcast, BroadcastConfig, Consumer, Producer, ProducerId};
    impl<const N: usize> Tx<N> for Producer<[u8; N]> {
        fn send(&mut self, message: &[u8; N]) {
            until(|| self.try_write(*message).ok());
        }
    }
    impl<const N: usize> Rx<N> for Consumer<[u8; N]> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.try_read())
        }
    }
    forked::<N, _, _>(mode, count, || {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
        let config = BroadcastConfig {
            capacity: SLOTS,
            producer_slots: 1,
            consumer_slots: 1,
        };
        // SAFETY: the file is new and nobody else's; the message type has no invalid bytes.
        let queue = unsafe { Broadcast::<[u8; N]>::create(&file, config) };
        let queue = queue.expect("a queue of shaq's");
        let producer = queue.producer(ProducerId::new(1)).expect("a lane");
        (producer, queue.consumer().expect("a place"))
    })
}

fn shmem_ipc<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use shmem_ipc::ringbuf::{Receiver, Sender};
    // Items of 64-bit words: the crate wants types whose bytes are plain, arrays of which it knows
    // only of some lengths.
    impl<const N: usize> Tx<N> for Sender<u64> {
        fn send(&mut self, message: &[u8; N]) {
            let words = N / 8;
            let mut sent = 0;
            while sent < words {
                let status = Sender::send(self, |slots, room| {
                    let count = room.min(words - sent);
                    // SAFETY: the closure is given `room` items to write.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            message.as_ptr().add(8 * sent),
                            slots.cast(),
                            8 * count,
                        );
                    }
                    sent += count;
                    count
                });
                assert!(status.is_ok(), "shmem-ipc: corrupt");
            }
        }
    }
    impl<const N: usize> Rx<N> for Receiver<u64> {
        fn recv(&mut self) -> [u8; N] {
            let words = N / 8;
            let mut message = [0; N];
            let mut taken = 0;
            while taken < words {
                let status = Receiver::recv(self, |slots, there| {
                    let count = there.min(words - taken);
                    // SAFETY: the closure is given `there` items to read.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            slots.cast(),
                            message.as_mut_ptr().add(8 * taken),
                            8 * count,
                        );
                    }
                    taken += count;
                    count
                });
                assert!(status.is_ok(), "shmem-ipc: corrupt");
            }
            message
        }
    }
    forked::<N, _, _>(mode, count, || {
        let len = 64 + SLOTS * N;
        // SAFETY: a fresh shared mapping, zeroed, which children of `fork` share; it is kept to
        // their end. Each end is attached once.
        unsafe {
            let area = libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            );
            assert!(area != libc::MAP_FAILED, "no memory");
            let sender = Sender::attach(area.cast(), len);
            let receiver = Receiver::attach(area.cast(), len);
            match (sender, receiver) {
                (Ok(sender), Ok(receiver)) => (sender, receiver),
                _ => panic!("shmem-ipc cannot attach"),
            }
        }
    })
}

fn iceoryx2<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use crate::stage::Role;
    use iceoryx2::port::publisher::Publisher;
    use iceoryx2::port::subscriber::Subscriber;
    use iceoryx2::prelude::*;
    struct Publish<const N: usize>(Publisher<ipc::Service, [u8; N], ()>);
    struct Subscribe<const N: usize>(Subscriber<ipc::Service, [u8; N], ()>);
    impl<const N: usize> Tx<N> for Publish<N> {
        fn send(&mut self, message: &[u8; N]) {
            let sample = self.0.loan_uninit().expect("a free sample");
            let sample = sample.write_payload(*message);
            sample.send().expect("a subscriber");
        }
    }
    impl<const N: usize> Rx<N> for Subscribe<N> {
        fn recv(&mut self) -> [u8; N] {
            until(|| self.0.receive().expect("a publisher").map(|sample| *sample))
        }
    }
    let of = std::process::id();
    processes(mode, count, |party| {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .create::<ipc::Service>()
            .expect("a node of iceoryx2");
        let service = |direction: &str| {
            let name = format!("ringway-perf/{of}/{direction}");
            node.service_builder(&name.as_str().try_into().expect("a service name"))
                .publish_subscribe::<[u8; N]>()
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(SLOTS)
                .open_or_create()
                .expect("a service of iceoryx2")
        };
        let (there, back) = (service("there"), service("back"));
        let (out, input) = match party.role {
            Role::Leader => (&there, &back),
            Role::Follower => (&back, &there),
        };
        let publisher = out
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .expect("a publisher");
        let subscriber = input.subscriber_builder().create().expect("a subscriber");
        party.play(Publish(publisher), Subscribe(subscriber));
    })
}

fn ipc_channel<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};
    impl<const N: usize> Tx<N> for IpcBytesSender {
        fn send(&mut self, message: &[u8; N]) {
            IpcBytesSender::send(self, message).expect("the receiver is there");
        }
    }
    impl<const N: usize> Rx<N> for IpcBytesReceiver {
        fn recv(&mut self) -> [u8; N] {
            let bytes = IpcBytesReceiver::recv(self).expect("the sender is there");
            bytes.try_into().expect("a whole message")
        }
    }
    forked::<N, _, _>(mode, count, || bytes_channel().expect("a channel"))
}

/// Aeron's IPC through `rusteron`: its media driver in a third process, exclusive publications, claims
/// written in place, images polled. (The driver shares the two processors with what is measured; in
/// shared mode with its own back-off it sleeps while nothing is set up.)
#[cfg(feature = "aeron")]
fn aeron<const N: usize>(mode: Mode, count: u64) -> Option<Outcome> {
    use crate::stage::{Helper, Role};
    use rusteron_client::*;
    use rusteron_media_driver::{AeronDriver, AeronDriverContext, AeronThreadingMode};
    use std::time::Duration;
    const STREAMS: [i32; 2] = [1002, 1003];
    struct Publish(AeronExclusivePublication, Aeron);
    struct Subscribe(AeronSubscription);
    impl<const N: usize> Tx<N> for Publish {
        fn send(&mut self, message: &[u8; N]) {
            loop {
                match self.0.try_claim_owned(N) {
                    Ok(mut claim) => {
                        claim.data().copy_from_slice(message);
                        claim.commit().expect("a commit");
                        return;
                    }
                    Err(error) if error.is_retryable() => spin_loop(),
                    Err(error) => panic!("aeron: {error:?}"),
                }
            }
        }
    }
    impl<const N: usize> Rx<N> for Subscribe {
        fn recv(&mut self) -> [u8; N] {
            let mut found = [0; N];
            until(|| {
                let see = |bytes: &[u8], _: AeronHeader| found.copy_from_slice(bytes);
                let polled = self.0.poll_fn(see, 1).expect("a poll");
                (polled > 0).then_some(())
            });
            found
        }

        fn recv_batch(&mut self, max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
            until(|| {
                let show = |bytes: &[u8], _: AeronHeader| see(bytes.try_into().expect("N bytes"));
                let polled = self.0.poll_fn(show, max).expect("a poll");
                (polled > 0).then_some(polled as usize)
            })
        }
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in /dev/shm");
    let path = dir.path().join("aeron");
    let path = path.to_str().expect("a path of letters");
    let _driver = Helper::start(|| {
        let context = AeronDriverContext::new().expect("a context");
        context.set_dir(&cformat!("{path}")).expect("a directory");
        let shared = AeronThreadingMode::AERON_THREADING_MODE_SHARED;
        context.set_threading_mode(shared).expect("a mode");
        let driver = AeronDriver::new(&context).expect("a driver");
        driver.start(false).expect("a start");
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    while !std::path::Path::new(path).join("cnc.dat").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    processes(mode, count, |party| {
        let wait = Duration::from_secs(10);
        let aeron = Aeron::connect_dir(path).expect("the driver is there");
        let (out, input) = match party.role {
            Role::Leader => (STREAMS[0], STREAMS[1]),
            Role::Follower => (STREAMS[1], STREAMS[0]),
        };
        let publication = aeron
            .async_add_exclusive_publication(AERON_IPC_STREAM, out)
            .and_then(|adding| adding.poll_blocking(wait))
            .expect("a publication");
        let subscription = aeron
            .async_add_subscription(AERON_IPC_STREAM, input, Handlers::NONE, Handlers::NONE)
            .and_then(|adding| adding.poll_blocking(wait))
            .expect("a subscription");
        while !publication.is_connected() || subscription.image_count().unwrap_or(0) == 0 {
            spin_loop();
        }
        party.play::<N>(Publish(publication, aeron), Subscribe(subscription));
    })
}
