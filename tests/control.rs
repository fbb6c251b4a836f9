//! Control of a pipeline: commands, priorities, refusals, and whatever a client may do wrong.

mod common;
#[path = "common/step.rs"]
mod step;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use common::{Random, Reaped, child, root_for, task, until, watchdog};
use ringway::Error;
use ringway::channel::Patience;
use ringway::control::{Client, Command, Over, RequestError, Server};
use step::Stepped;

fn name(test: &str) -> String {
    format!("t{}-{test}", std::process::id())
}

fn fifo(name: &str) -> String {
    format!("/tmp/ringway.{name}.ctl")
}

/// Neither the server's post nor a client's is left.
fn assert_nothing_left(name: &str) {
    let prefix = format!("ringway.{name}.");
    let left: Vec<_> = std::fs::read_dir("/tmp")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|file| file.to_string_lossy().starts_with(&prefix))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    for queue in std::iter::once(format!("/ringway.{name}.ctl"))
        .chain((0..64).map(|n| format!("/ringway.{name}.ctl.{n}")))
    {
        let open = ringway::channel::mqueue::Receiver::attach(&queue);
        assert!(matches!(open, Err(Error::NotFound { .. })), "{queue} left");
    }
}

/// Serves until told to stop; counts what it was told.
fn serve(mut server: Server) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut served = 0;
        while let Some(request) = server.wait(Patience::Forever) {
            served += 1;
            match request.command() {
                Command::Stop => {
                    request.reply(Ok("stopping"));
                    break;
                }
                Command::Ping => request.reply(Ok("pong")),
                Command::Stats => request.reply(Ok("line 1\nline 2 \\ of äöü\n")),
                Command::Set { key, value } => {
                    let echo = format!("{key}={value}");
                    request.reply(Ok(&echo));
                }
                _ => request.reply(Err("not now")),
            }
        }
        served
    })
}

const PATIENCE: Patience = Patience::Within(Duration::from_secs(20));

#[test]
fn every_command_is_answered_over_fifo_and_over_queue() {
    let _dog = watchdog(60);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("answer-{over:?}"));
        let server = Server::bind_over(&name, over).unwrap();
        let serving = serve(server);
        let mut client = Client::connect(&name).unwrap();
        assert_eq!(client.request(&Command::Ping, PATIENCE).unwrap(), "pong");
        assert_eq!(
            client.request(&Command::Stats, PATIENCE).unwrap(),
            "line 1\nline 2 \\ of äöü\n"
        );
        let set = Command::Set {
            key: "a key".into(),
            value: "of two\nlines".into(),
        };
        assert_eq!(
            client.request(&set, PATIENCE).unwrap(),
            "a key=of two\nlines"
        );
        for refused in [Command::Pause, Command::Resume, Command::Drain] {
            let answer = client.request(&refused, PATIENCE);
            assert!(matches!(answer, Err(RequestError::Refused(why)) if why == "not now"));
        }
        assert_eq!(
            client.request(&Command::Stop, PATIENCE).unwrap(),
            "stopping"
        );
        assert_eq!(serving.join().unwrap(), 7);
        assert!(matches!(
            client.request(&Command::Ping, PATIENCE),
            Err(RequestError::Gone)
        ));
        drop(client);
        assert!(matches!(
            Client::connect(&name),
            Err(Error::NotFound { .. })
        ));
        assert_nothing_left(&name);
    }
}

#[test]
fn a_long_answer_arrives_whole() {
    let _dog = watchdog(60);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("long-{over:?}"));
        let mut server = Server::bind_over(&name, over).unwrap();
        let long = "0123456789äöü\n".repeat(1200);
        let expected = long.clone();
        let serving = std::thread::spawn(move || {
            server.wait(Patience::Forever).unwrap().reply(Ok(&long));
        });
        let mut client = Client::connect(&name).unwrap();
        assert_eq!(client.request(&Command::Stats, PATIENCE).unwrap(), expected);
        serving.join().unwrap();
        drop(client);
        assert_nothing_left(&name);
    }
}

#[test]
fn stop_comes_before_all_that_came_before_it() {
    let _dog = watchdog(60);
    let name = name("order");
    let mut server = Server::bind_over(&name, Over::Fifo).unwrap();
    let mut fifo = std::fs::OpenOptions::new()
        .write(true)
        .open(fifo(&name))
        .unwrap();
    fifo.write_all(b"ping\nstats\nset a b\nping\nrestart 2\nresume\npause\ndrain\nstop\n")
        .unwrap();
    let order: Vec<String> = std::iter::from_fn(|| server.next())
        .map(|request| request.command().to_string())
        .collect();
    let expected = [
        "stop",
        "drain",
        "pause",
        "resume",
        "restart 2",
        "set a b",
        "stats",
        "ping",
        "ping",
    ];
    assert_eq!(order, expected);
    drop(server);
    assert_nothing_left(&name);
}

#[test]
fn a_second_server_is_refused_while_the_first_lives_and_welcome_after_it_was_killed() {
    let _dog = watchdog(60);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("second-{over:?}"));
        let mut first = Reaped(
            child("child_process", &format!("serve {name} {over:?}"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        until(|| Client::connect(&name).is_ok());
        for other in [Over::Fifo, Over::Queue] {
            let refused = Server::bind_over(&name, other);
            assert!(
                matches!(refused, Err(Error::AlreadyExists { .. })),
                "{refused:?}"
            );
        }
        let mut client = Client::connect(&name).unwrap();
        client.request(&Command::Ping, PATIENCE).unwrap();
        first.0.kill().unwrap();
        first.0.wait().unwrap();
        assert!(matches!(
            client.request(&Command::Ping, PATIENCE),
            Err(RequestError::Gone)
        ));
        drop(client);
        let server = Server::bind_over(&name, over).unwrap();
        drop(server);
        assert_nothing_left(&name);
    }
}

#[test]
fn a_client_killed_while_it_waits_costs_nobody_anything() {
    let _dog = watchdog(60);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("killed-{over:?}"));
        let mut server = Server::bind_over(&name, over).unwrap();
        for _ in 0..20 {
            let mut client = Reaped(
                child("child_process", &format!("ask {name}"))
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            let request = server.wait(PATIENCE).unwrap();
            client.0.kill().unwrap();
            client.0.wait().unwrap();
            request.reply(Ok("pong"));
        }
        drop(server);
        assert_nothing_left(&name);
    }
}

#[test]
fn another_user_is_refused() {
    let _dog = watchdog(60);
    if !root_for("to be another user") {
        return;
    }
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("user-{over:?}"));
        let server = Server::bind_over(&name, over).unwrap();
        let serving = serve(server);
        let status = child("child_process", &format!("refused {name}"))
            .uid(65534)
            .gid(65534)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let mut client = Client::connect(&name).unwrap();
        client.request(&Command::Stop, PATIENCE).unwrap();
        assert_eq!(serving.join().unwrap(), 1);
        drop(client);
        assert_nothing_left(&name);
    }
}

#[test]
fn ten_thousand_random_inputs_leave_the_server_answering() {
    let _dog = watchdog(120);
    for (over, inputs) in [(Over::Fifo, 7000), (Over::Queue, 3000)] {
        let name = name(&format!("random-{over:?}"));
        let server = Server::bind_over(&name, over).unwrap();
        let serving = serve(server);
        let mut client = Client::connect(&name).unwrap();
        let seed = std::process::id().into();
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut raw = Raw::open(over, &name);
        let valid = [
            "ping",
            "stats",
            "pause",
            "resume",
            "drain",
            "restart x",
            "set k v",
        ];
        for input in 0..inputs {
            let mut line = match random.below(8) {
                0 => valid[random.below(7) as usize].as_bytes().to_vec(),
                1 => format!("@{} {} ping", random.below(70), random.below(9)).into_bytes(),
                2 => b"@".repeat(random.below(100) as usize),
                3 => (0..random.below(3000))
                    .map(|_| random.next() as u8)
                    .collect(),
                4 => valid[random.below(7) as usize].as_bytes()[..2].to_vec(),
                5 => format!("@0 1 {}", "x".repeat(random.below(3000) as usize)).into_bytes(),
                6 => b"\n\n\n".to_vec(),
                _ => format!("set {}", "\\".repeat(random.below(50) as usize)).into_bytes(),
            };
            // `stop` would end it, as it should; random bytes hardly spell it.
            if random.below(3) > 0 {
                line.push(b'\n');
            }
            raw.put(&line);
            if input % 500 == 0 {
                assert_eq!(client.request(&Command::Ping, PATIENCE).unwrap(), "pong");
            }
        }
        assert_eq!(client.request(&Command::Ping, PATIENCE).unwrap(), "pong");
        assert_eq!(
            client.request(&Command::Stop, PATIENCE).unwrap(),
            "stopping"
        );
        let served = serving.join().unwrap();
        println!("{over:?}: {inputs} inputs, {served} of them commands");
        drop((client, raw));
        assert_nothing_left(&name);
    }
}

/// A client that writes whatever it likes.
enum Raw {
    Fifo(std::fs::File),
    Queue(ringway::channel::mqueue::Sender),
}

impl Raw {
    fn open(over: Over, name: &str) -> Raw {
        match over {
            Over::Fifo => {
                let path = fifo(name);
                Raw::Fifo(std::fs::OpenOptions::new().write(true).open(path).unwrap())
            }
            Over::Queue => {
                let queue = format!("/ringway.{name}.ctl");
                Raw::Queue(ringway::channel::mqueue::Sender::attach(&queue).unwrap())
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self {
            Raw::Fifo(file) => file.write_all(bytes).unwrap(),
            Raw::Queue(queue) => queue.send_priority(bytes, 0, PATIENCE).unwrap(),
        }
    }
}

/// Clients that come at once where killed ones have left their inboxes: each gets its own answer.
#[test]
fn clients_that_take_the_places_of_killed_ones_do_not_take_each_others() {
    let _dog = watchdog(120);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("places-{over:?}"));
        let serving = serve(Server::bind_over(&name, over).unwrap());
        for _ in 0..30 {
            let mut killed: Vec<_> = (0..2)
                .map(|_| {
                    let mut command = child("child_process", &format!("stay {name}"));
                    Reaped(command.stdout(Stdio::piped()).spawn().unwrap())
                })
                .collect();
            for child in &mut killed {
                let mut said = std::io::BufReader::new(child.0.stdout.take().unwrap());
                let mut line = String::new();
                while !line.contains("HERE") {
                    assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0);
                }
            }
            drop(killed);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut client = Client::connect(&name).unwrap();
                        assert_eq!(client.request(&Command::Ping, PATIENCE).unwrap(), "pong");
                    });
                }
            });
        }
        let mut client = Client::connect(&name).unwrap();
        client.request(&Command::Stop, PATIENCE).unwrap();
        serving.join().unwrap();
        drop(client);
        assert_nothing_left(&name);
    }
}

/// A client comes at each system call of a server that ends and cleans up after clients that were killed.
#[test]
fn a_client_that_comes_while_the_server_ends_keeps_the_name_of_its_inbox() {
    let _dog = watchdog(120);
    for over in [Over::Fifo, Over::Queue] {
        let name = name(&format!("ending-{over:?}"));
        let mine = format!("ringway.{name}.ctl.");
        let mut server =
            Stepped::start(&mut child("child_process", &format!("end {name} {over:?}")));
        // It looks for the first of them first.
        for at in 0..32 {
            let (mut call, mut client) = (0, None);
            server.calls(|_, _| {
                if call == at {
                    client = Some(Client::connect(&name).unwrap());
                }
                call += 1;
                None
            });
            assert!(client.is_some(), "it ends in {call} calls");
            for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
                let open = std::fs::read_link(entry.unwrap().path());
                let open = open.map_or(String::new(), |it| it.display().to_string());
                let lost = open.contains(&mine) && open.ends_with("(deleted)");
                assert!(!lost, "call {at}: {open}");
            }
            drop(client);
            server.go_on();
        }
        drop(server);
        drop(Server::bind_over(&name, over).unwrap());
        assert_nothing_left(&name);
    }
}

#[test]
fn a_half_command_of_a_dead_writer_does_not_spoil_the_next_one() {
    let _dog = watchdog(60);
    let name = name("half");
    let server = Server::bind_over(&name, Over::Fifo).unwrap();
    let serving = serve(server);
    let mut raw = Raw::open(Over::Fifo, &name);
    raw.put(b"@0 12 set ke");
    drop(raw);
    let mut client = Client::connect(&name).unwrap();
    assert_eq!(client.request(&Command::Ping, PATIENCE).unwrap(), "pong");
    client.request(&Command::Stop, PATIENCE).unwrap();
    assert_eq!(serving.join().unwrap(), 2);
    drop(client);
    assert_nothing_left(&name);
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    for bad in ["", "a/b", "../x", "a b", &"x".repeat(65)] {
        assert!(matches!(Server::bind(bad), Err(Error::Config { .. })));
        assert!(matches!(Client::connect(bad), Err(Error::Config { .. })));
    }
}

proptest::proptest! {
    #[test]
    fn a_command_that_is_printed_and_parsed_is_itself(key in "\\PC{1,20}", value in "[ -~\n\t\\\\]{1,20}") {
        for command in [
            Command::Set { key: key.clone(), value: value.clone() },
            Command::Restart(value.clone()),
            Command::Drain,
        ] {
            proptest::prop_assert_eq!(command.to_string().parse::<Command>().unwrap(), command);
        }
    }
}

fn parse(over: &str) -> Over {
    match over {
        "Fifo" => Over::Fifo,
        _ => Over::Queue,
    }
}

/// The other processes of the tests above.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    match words.as_slice() {
        ["serve", name, over] => {
            serve(Server::bind_over(name, parse(over)).unwrap())
                .join()
                .unwrap();
        }
        ["stay", name] => {
            let _client = Client::connect(name).unwrap();
            println!("\nHERE");
            std::thread::park();
        }
        ["end", name, over] => {
            step::traced();
            loop {
                let server = Server::bind_over(name, parse(over)).unwrap();
                step::here();
                drop(server);
                step::here();
            }
        }
        ["ask", name] => {
            let mut client = Client::connect(name).unwrap();
            let _ = client.request(&Command::Ping, Patience::Forever);
        }
        ["refused", name] => {
            let refused = Client::connect(name);
            assert!(
                matches!(refused, Err(Error::PermissionDenied { .. })),
                "{refused:?}"
            );
            let refused = Server::bind(name);
            assert!(refused.is_err(), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
}
