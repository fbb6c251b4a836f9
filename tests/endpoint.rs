//! Endpoints: their text, the list that falls back, and `auto:` under everything that may be refused.

mod common;
#[path = "common/restrict.rs"]
mod restrict;

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use common::{Reaped, assert_no_file_left, child, root_for, task, watchdog};
use proptest::prelude::*;
use restrict::{NO_SHARED_MEMORY, can_mount, deny_memfd_create};
use ringway::channel::{Receiver, Sender};
use ringway::endpoint::{
    AutoReceiver, AutoSender, Mechanism, OpenError, open_pair, open_receiver, open_sender,
};
use ringway::{Endpoint, Error};

fn name(test: &str) -> String {
    format!("rwe-{}-{test}", std::process::id())
}

fn parse(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let mechanism = proptest::sample::select(Mechanism::ALL);
    let options = proptest::collection::btree_map(
        proptest::sample::select(vec![
            "fd", "pid", "mode", "depth", "message", "capacity", "named", "slots", "slot",
        ]),
        prop_oneof![0u64..100_000, Just(1 << 20), Just(3 << 30), Just(u64::MAX)],
        0..4,
    );
    (mechanism, "[^\\x00]{1,30}", options).prop_map(|(mechanism, name, options)| {
        let name = if mechanism == Mechanism::Pipe {
            String::new()
        } else {
            name
        };
        let endpoint = Endpoint::new(mechanism, name).unwrap();
        options
            .into_iter()
            .fold(endpoint, |endpoint, (key, value)| {
                endpoint.clone().with(key, value).unwrap_or(endpoint)
            })
    })
}

proptest! {
    #[test]
    fn an_endpoint_that_is_printed_and_parsed_is_itself(endpoint in any_endpoint()) {
        let text = endpoint.to_string();
        prop_assert_eq!(parse(&text), endpoint, "{}", text);
    }

    #[test]
    fn any_text_is_parsed_or_refused_with_a_remedy(text in "\\PC{0,60}") {
        if let Err(error) = text.parse::<Endpoint>() {
            let remedied = matches!(error, Error::Config { .. });
            prop_assert!(remedied);
        }
    }
}

#[test]
fn a_wrong_endpoint_says_what_is_wrong_with_it() {
    for (text, said) in [
        ("orders", "it has no colon"),
        ("tcp:orders", "is no mechanism"),
        ("mq:", "it has no name"),
        ("pipe:x", "a pipe has no name"),
        (
            "mq:x?colour=3",
            "has no option \"colour\"; it has: depth, message, mode",
        ),
        ("mq:x?depth", "has no value"),
        ("mq:x?depth=many", "write a number"),
        ("fifo:/x?mode=0699", "an octal number"),
        ("mq:x?message=4XB", "64K or 1MiB"),
        ("mq:%zz", "escapes nothing"),
    ] {
        let error = text.parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    assert_eq!(
        parse("mq:x?message=4096&depth=2").to_string(),
        "mq:x?depth=2&message=4KiB"
    );
    assert_eq!(parse("fifo:/a%3Fb?mode=0644").name(), "/a?b");
}

/// Sends numbers; checks that they all arrive, in order.
fn send_numbers(tx: &mut dyn Sender) {
    for number in 0..5000_u32 {
        tx.send(&number.to_le_bytes()).unwrap();
    }
}

fn receive_numbers(rx: &mut dyn Receiver) {
    let mut got = Vec::new();
    for number in 0..5000_u32 {
        rx.recv(&mut got).unwrap();
        assert_eq!(got, number.to_le_bytes());
    }
    assert!(matches!(rx.recv(&mut got), Err(ringway::RecvError::Closed)));
}

#[test]
fn a_list_takes_the_first_that_can_be_had_and_reports_the_others() {
    let _dog = watchdog(60);
    let name = name("list");
    let list = [
        parse("fifo:/nowhere/at/all"),
        parse(&format!("mq:{name}?depth=1000000")),
        parse(&format!("unix:/tmp/{name}")),
        parse(&format!("fifo:/tmp/{name}.2")),
    ];
    let mut rx = open_receiver(&list).unwrap();
    let mut tx = open_sender(&list).unwrap();
    for (taken, refused) in [(&tx.taken, &tx.refused), (&rx.taken, &rx.refused)] {
        // A sender by socket waits for its receiver; it is never refused for want of one.
        assert_eq!(*taken, list[2]);
        assert_eq!(refused.len(), 2);
    }
    let report = rx.to_string();
    assert!(report.contains("/nowhere/at/all: refused: "), "{report}");
    assert!(
        report.ends_with(&format!("unix:/tmp/{name}: taken")),
        "{report}"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| receive_numbers(&mut *rx.channel));
        send_numbers(&mut *tx.channel);
        tx.channel.close();
    });
    drop((tx, rx));
    assert_no_file_left(&name);
}

#[test]
fn when_nothing_can_be_had_every_reason_is_told() {
    let list = [parse("fifo:/nowhere/a"), parse("unix:/nowhere/b")];
    let error = open_receiver(&list).unwrap_err();
    assert_eq!(error.refused.len(), 2);
    assert_eq!(error.to_string().lines().count(), 2);
}

/// Runs this binary in a child that is refused something.
fn restricted(
    task: &str,
    restrict: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
) -> Reaped {
    let mut command = child("child_process", task);
    command.stdout(Stdio::null());
    // SAFETY: what is run between fork and exec are system calls only.
    unsafe { command.pre_exec(restrict) };
    Reaped(command.spawn().unwrap())
}

fn succeed(mut child: Reaped) {
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn auto_agrees_on_another_way_when_only_the_sender_is_refused_shared_memory() {
    let _dog = watchdog(60);
    if !can_mount() {
        return;
    }
    for (how, restrict) in NO_SHARED_MEMORY {
        let name = name("sender");
        let child = restricted(&format!("auto-send {name}"), restrict);
        let mut rx = AutoReceiver::open(&name).unwrap();
        receive_numbers(&mut rx);
        let (taken, refused) = rx.agreed().unwrap();
        println!("{how}: {refused:?}, then {taken}");
        assert_eq!(taken.mechanism(), Mechanism::Unix, "{how}");
        assert!(
            refused[0].contains("refused by the sender"),
            "{how}: {refused:?}"
        );
        succeed(child);
        drop(rx);
        assert_no_file_left(&name);
    }
}

#[test]
fn auto_agrees_on_another_way_when_only_the_receiver_is_refused_shared_memory() {
    let _dog = watchdog(60);
    if !can_mount() {
        return;
    }
    for (how, restrict) in NO_SHARED_MEMORY {
        let name = name("receiver");
        let child = restricted(&format!("auto-recv {name}"), restrict);
        let mut tx = AutoSender::open(&name).unwrap();
        send_numbers(&mut tx);
        let (taken, refused) = tx.agreed().unwrap();
        println!("{how}: {refused:?}, then {taken}");
        assert_eq!(taken.mechanism(), Mechanism::Unix, "{how}");
        assert!(
            refused[0].contains("refused by the receiver"),
            "{how}: {refused:?}"
        );
        tx.close();
        succeed(child);
        drop(tx);
        assert_no_file_left(&name);
    }
}

/// What a restricted child says on standard output.
fn said(mut child: Reaped) -> String {
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().unwrap(), &mut said).unwrap();
    assert!(child.0.wait().unwrap().success(), "{said}");
    said
}

#[test]
fn a_list_falls_back_on_both_sides_when_shared_memory_is_refused_and_says_why() {
    let _dog = watchdog(60);
    if !can_mount() {
        return;
    }
    for (how, restrict) in NO_SHARED_MEMORY {
        let name = name("both-lists");
        let list = format!("ring:{name} mpmc:{name} sem:{name} fifo:/tmp/{name}");
        let start = |side: &str| {
            let mut command = child("child_process", &format!("list-report {side} {list}"));
            command.stdout(Stdio::piped());
            // SAFETY: what is run between fork and exec are system calls only.
            unsafe { command.pre_exec(restrict) };
            Reaped(command.spawn().unwrap())
        };
        let (receiver, sender) = (start("recv"), start("send"));
        for said in [said(receiver), said(sender)] {
            let reports: Vec<_> = said.lines().filter(|l| l.contains(&name)).collect();
            println!("{how}:\n{}", reports.join("\n"));
            assert_eq!(reports.len(), 4, "{said}");
            for (report, mechanism) in reports.iter().zip(["ring", "mpmc", "sem"]) {
                let refused = format!("{mechanism}:{name}: refused: ");
                let why = report.split_once(&refused).expect(report).1;
                let reason = match how {
                    "full" => "no room for",
                    "missing" => "o such ", // directory, said in two ways
                    _ => "Read-only file system",
                };
                assert!(why.contains(reason), "{how}: {report}");
            }
            assert!(reports[3].ends_with(&format!("fifo:/tmp/{name}: taken")));
        }
        assert_no_file_left(&name);
    }
}

#[test]
fn auto_takes_shared_memory_when_both_have_it_whoever_comes_first() {
    let _dog = watchdog(60);
    let name = name("both");
    let child = restricted(&format!("auto-send {name}"), || Ok(()));
    let mut rx = AutoReceiver::open(&name).unwrap();
    receive_numbers(&mut rx);
    assert_eq!(rx.agreed().unwrap().0.mechanism(), Mechanism::Ring);
    assert!(rx.agreed().unwrap().1.is_empty());
    succeed(child);
    drop(rx);
    let mut tx = AutoSender::open(&name).unwrap();
    let second = AutoSender::open(&name);
    assert!(matches!(second.err(), Some(Error::RoleTaken { .. })));
    let child = restricted(&format!("auto-recv {name}"), || Ok(()));
    send_numbers(&mut tx);
    tx.close();
    succeed(child);
    drop(tx);
    assert_no_file_left(&name);
}

#[test]
fn auto_proposes_anew_what_a_receiver_was_killed_while_answering() {
    let _dog = watchdog(60);
    let name = name("answering");
    let mut tx = AutoSender::open(&name).unwrap();
    assert!(matches!(
        tx.try_send(b"early"),
        Err(ringway::SendError::Full)
    ));
    // So far had it got: the file is empty, and nothing is written yet.
    let place = format!("/tmp/ringway.{name}.auto");
    let file = std::fs::OpenOptions::new().write(true).open(place).unwrap();
    file.set_len(0).unwrap();
    assert!(matches!(
        tx.try_send(b"early"),
        Err(ringway::SendError::Full)
    ));
    let child = restricted(&format!("auto-recv {name}"), || Ok(()));
    send_numbers(&mut tx);
    let (agreed, refused) = tx.agreed().unwrap();
    assert_eq!((agreed.mechanism(), refused), (Mechanism::Ring, &[][..]));
    tx.close();
    succeed(child);
    drop(tx);
    assert_no_file_left(&name);
}

#[test]
fn a_pair_falls_back_when_memfd_create_is_denied() {
    let _dog = watchdog(60);
    let opened = open_pair(&[Mechanism::Ring, Mechanism::Sem, Mechanism::Pipe]).unwrap();
    assert_eq!(opened.taken.mechanism(), Mechanism::Ring);
    succeed(restricted("pair without memfd", deny_memfd_create));
}

fn limit(what: u32, to: u64) -> std::io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: to,
        rlim_max: to,
    };
    // SAFETY: `limit` is initialised.
    match unsafe { libc::setrlimit(what, &limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn an_exhausted_limit_on_queues_falls_back_to_the_next() {
    let _dog = watchdog(60);
    let name = name("queues");
    let list = format!("mq:{name} fifo:/tmp/{name}");
    let sender = restricted(&format!("list-send {list}"), || {
        limit(libc::RLIMIT_MSGQUEUE, 1000)
    });
    // The other end is not refused the queue: a list is the same for both only where both are
    // refused the same; so it opens what the first one reports.
    let mut rx = open_receiver(&[parse(&format!("fifo:/tmp/{name}"))]).unwrap();
    receive_numbers(&mut *rx.channel);
    succeed(sender);
    drop(rx);
    assert_no_file_left(&name);
}

#[test]
fn another_user_is_refused_and_no_other_way_is_tried() {
    let _dog = watchdog(60);
    if !root_for("to be another user") {
        return;
    }
    let name = name("user");
    let fallback = format!("mq:{name}-fallback");
    for first in [
        format!("ring:{name}"),
        format!("mpmc:{name}"),
        format!("fifo:/tmp/{name}"),
        format!("unix:/tmp/{name}.sock"),
        format!("mq:{name}"),
        format!("sem:{name}"),
        format!("signal:{name}"),
        format!("auto:{name}"),
    ] {
        let rx = parse(&first).receiver().unwrap();
        let mut command = child("child_process", &format!("list-refused {first} {fallback}"));
        let status = command
            .uid(65534)
            .gid(65534)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{first}");
        drop(rx);
    }
    assert_no_file_left(&name);
    assert!(ringway::channel::mqueue::Receiver::attach(&format!("{name}-fallback")).is_err());
}

#[test]
fn too_few_descriptors_are_told_with_the_number_needed_and_nothing_is_left_half_open() {
    let _dog = watchdog(60);
    let name = name("fds");
    succeed(restricted(&format!("descriptors {name}"), || Ok(())));
    assert_no_file_left(&name);
}

fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD takes no argument.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn descriptors() -> usize {
    // Counted without opening one.
    (0..64).filter(|&fd| is_open(fd)).count()
}

/// The other processes of the tests above.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let _dog = watchdog(50);
    let words: Vec<&str> = task.split(' ').collect();
    match words.as_slice() {
        ["auto-send", name] => {
            let mut tx = AutoSender::open(name).unwrap();
            send_numbers(&mut tx);
        }
        ["auto-recv", name] => {
            let mut rx = AutoReceiver::open(name).unwrap();
            receive_numbers(&mut rx);
        }
        ["list-send", list @ ..] => {
            let list: Vec<_> = list.iter().map(|text| parse(text)).collect();
            let mut opened = open_sender(&list).unwrap();
            assert_eq!(opened.taken, list[1]);
            assert!(
                matches!(opened.refused[0].error, Error::NoRoom { .. }),
                "{:?}",
                opened.refused
            );
            send_numbers(&mut *opened.channel);
        }
        ["list-refused", list @ ..] => {
            let list: Vec<_> = list.iter().map(|text| parse(text)).collect();
            let error = open_sender(&list).map(|opened| opened.taken).unwrap_err();
            assert_eq!(error.refused.len(), 1, "{error}");
            let refused = &error.refused[0].error;
            assert!(
                matches!(refused, Error::PermissionDenied { .. }),
                "{refused:?}"
            );
        }
        ["pair", ..] => {
            let opened = open_pair(&[Mechanism::Ring, Mechanism::Sem, Mechanism::Pipe]).unwrap();
            assert_eq!(opened.taken.mechanism(), Mechanism::Pipe);
            assert!(
                opened.to_string().starts_with("ring:: refused: "),
                "{opened}"
            );
            let (mut tx, mut rx) = opened.channel;
            std::thread::spawn(move || send_numbers(&mut *tx));
            receive_numbers(&mut *rx);
        }
        ["descriptors", name] => {
            // What the first use of a thread or the like opens for good is none of the endpoint's.
            drop(parse(&format!("signal:{name}")).receiver());
            let before = descriptors();
            let fallback = parse(&format!("fifo:/tmp/{name}.fallback"));
            for text in [
                format!("ring:{name}"),
                format!("mpmc:{name}"),
                format!("fifo:/tmp/{name}"),
                format!("unix:/tmp/{name}.sock"),
                format!("mq:{name}"),
                format!("sem:{name}"),
                format!("sem:{name}?named=1"),
                format!("signal:{name}"),
                format!("auto:{name}"),
            ] {
                // One fewer than it takes, whatever numbers are taken beyond.
                let list = [parse(&text), fallback.clone()];
                leave(0);
                let none = [refused(open_sender(&list)), refused(open_receiver(&list))];
                let needed = none.map(|error| match &error.refused[..] {
                    [only] => needed(&only.error),
                    more => panic!("it went on to {more:?}"),
                });
                assert_eq!(needed[0], needed[1]);
                let needed = needed[0];
                leave(needed - 1);
                for error in [refused(open_sender(&list)), refused(open_receiver(&list))] {
                    assert_eq!(error.refused.len(), 1, "{error}");
                }
                limit_softly(1024);
                assert_eq!(descriptors(), before, "{text}");
                // As many as it said are enough, for either side.
                leave(needed);
                let receiver = open_receiver(&list);
                limit_softly(1024);
                println!("{text}: {needed} descriptors");
                let receiver = receiver.unwrap();
                assert_eq!(receiver.taken, list[0], "{:?}", receiver.refused);
                leave(needed);
                let sender = open_sender(&list);
                limit_softly(1024);
                let sender = sender.unwrap();
                assert_eq!(sender.taken, list[0], "{:?}", sender.refused);
                drop((sender, receiver));
                assert_eq!(descriptors(), before, "{text}");
            }
        }
        ["list-report", side, list @ ..] => {
            let list: Vec<_> = list.iter().map(|text| parse(text)).collect();
            if *side == "send" {
                let mut opened = open_sender(&list).unwrap();
                println!("\n{opened}");
                send_numbers(&mut *opened.channel);
            } else {
                let mut opened = open_receiver(&list).unwrap();
                println!("\n{opened}");
                receive_numbers(&mut *opened.channel);
            }
        }
        other => panic!("{other:?}"),
    }
}

fn refused<T>(opened: Result<ringway::endpoint::Opened<T>, OpenError>) -> OpenError {
    opened.map(|opened| opened.taken).unwrap_err()
}

/// How many descriptors it says are needed.
fn needed(error: &Error) -> u64 {
    match error {
        Error::NoRoom { needed, .. } => {
            let (number, what) = needed.split_once(' ').unwrap();
            assert!(what.starts_with("file descriptor"), "{needed}");
            number.parse().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Leaves this process room for so many more descriptors.
fn leave(more: u64) {
    let free = (0..).filter(|&fd| !is_open(fd));
    let last = free.take(more as usize).last();
    let none = (0..).find(|&fd| !is_open(fd)).unwrap();
    limit_softly(last.map_or(none, |last| last + 1) as u64);
}

fn limit_softly(to: u64) {
    let limit = libc::rlimit {
        rlim_cur: to,
        rlim_max: 20000,
    };
    // SAFETY: `limit` is initialised.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}
