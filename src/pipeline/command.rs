//! A stage's command line: taken apart as a shell would, when it is a simple command; given to
//! `sh -c` when it is anything more.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Unquoted, each of these means something to a shell.
const SPECIAL: &[char] = &[
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '*', '?', '[', ']', '{', '}', '!', '#', '~', '^',
    '\n', '\r',
];

/// First words that a shell does not look up among the programs, or that it has its own form of.
const OF_THE_SHELL: &[&str] = &[
    ".", ":", "[", "alias", "bg", "break", "builtin", "case", "cd", "command", "continue", "echo",
    "eval", "exec", "exit", "export", "false", "fc", "fg", "for", "function", "getopts", "hash",
    "if", "jobs", "kill", "local", "printf", "pwd", "read", "readonly", "return", "set", "shift",
    "source", "test", "time", "times", "trap", "true", "type", "ulimit", "umask", "unalias",
    "unset", "until", "wait", "while",
];

/// The words of a simple command; `None` when only a shell can tell what it does (a pipe, a
/// redirection, an expansion, an assignment, a command of the shell's own, an open quote).
pub(super) fn words(line: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take().map(OsString::from)),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
                quoted |= words.is_empty();
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => match chars.next()? {
                            c @ ('$' | '`' | '"' | '\\') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
                quoted |= words.is_empty();
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            // An assignment, if it stands in the first word.
            '=' if words.is_empty() => return None,
            c if SPECIAL.contains(&c) => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(OsString::from));
    match words.first()?.to_str() {
        Some(first) if !quoted && OF_THE_SHELL.contains(&first) => None,
        _ => Some(words),
    }
}

/// Why a program was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is none of that name.
    NotFound,
    /// There is a file, but it may not be executed.
    NotExecutable,
}

/// The file that a shell would execute for `name`, looked up in `path` (the variable `PATH`).
pub(super) fn find(name: &OsStr, path: &OsStr) -> Result<PathBuf, Missing> {
    let executable = |meta: &Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    if name.as_bytes().contains(&b'/') {
        return match std::fs::metadata(name) {
            Ok(meta) if executable(&meta) => Ok(PathBuf::from(name)),
            Ok(_) => Err(Missing::NotExecutable),
            Err(_) => Err(Missing::NotFound),
        };
    }
    let mut missing = Missing::NotFound;
    for directory in std::env::split_paths(path) {
        // An empty entry is the working directory, as for a shell.
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &directory
        };
        let file = directory.join(name);
        match std::fs::metadata(&file) {
            Ok(meta) if executable(&meta) => return Ok(file),
            Ok(meta) if meta.is_file() => missing = Missing::NotExecutable,
            _ => {}
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(line: &str) -> Option<Vec<String>> {
        words(line).map(|words| {
            words
                .into_iter()
                .map(|word| word.into_string().unwrap())
                .collect()
        })
    }

    #[test]
    fn simple_commands_are_taken_apart_as_a_shell_would() {
        let cases: &[(&str, &[&str])] = &[
            ("seq 1 10", &["seq", "1", "10"]),
            ("  wc\t-l  ", &["wc", "-l"]),
            ("grep 'a b' \"c d\"", &["grep", "a b", "c d"]),
            ("grep a\\ b", &["grep", "a b"]),
            ("printf-like '' \"\"", &["printf-like", "", ""]),
            ("x a'b'\"c\"d", &["x", "abcd"]),
            ("x \"a\\$b\\n\\\"\"", &["x", "a$b\\n\""]),
            ("dd if=/dev/zero bs=1M", &["dd", "if=/dev/zero", "bs=1M"]),
            ("grep '$HOME|*'", &["grep", "$HOME|*"]),
            ("'echo' x", &["echo", "x"]),
        ];
        for (line, words) in cases {
            assert_eq!(simple(line).as_deref().unwrap(), *words, "{line}");
        }
    }

    #[test]
    fn what_only_a_shell_understands_is_left_to_it() {
        for line in [
            "a | b",
            "a > f",
            "a < f",
            "a; b",
            "a && b",
            "a &",
            "$x",
            "echo x",
            "x \"$HOME\"",
            "x `y`",
            "ls *.c",
            "A=1 b",
            "cd /",
            "x 'open",
            "x \"open",
            "x \\",
            "",
            "   ",
            "! a",
            "(a)",
            "{ a; }",
            "a # b",
            "x ~",
            "if true",
            "[ -f x ]",
            "a\nb",
        ] {
            assert_eq!(simple(line), None, "{line:?}");
        }
    }

    #[test]
    fn words_agree_with_the_shell() {
        for line in [
            "x a 'b c' \"d  e\" f\\ g '' \"h\\\"i\" 'j\"k' l\\\\m \"n\\o\" p'q'r\"s\"t",
            "x\t\ta  \"\" '\\' \"\\\\\"",
        ] {
            let script = format!("set -- {line}; for w; do command printf '%s\\0' \"$w\"; done");
            let out = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            let theirs: Vec<&str> = str::from_utf8(&out.stdout)
                .unwrap()
                .split_terminator('\0')
                .collect();
            assert_eq!(simple(line).unwrap(), theirs, "{line}");
        }
    }

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let path = OsStr::new("/nonexistent:/usr/bin:/bin");
        assert!(find(OsStr::new("sh"), path).unwrap().ends_with("bin/sh"));
        assert_eq!(
            find(OsStr::new("no-such-program"), path),
            Err(Missing::NotFound)
        );
        assert_eq!(
            find(OsStr::new("/etc/passwd"), path),
            Err(Missing::NotExecutable)
        );
        assert_eq!(
            find(OsStr::new("/nonexistent/x"), path),
            Err(Missing::NotFound)
        );
    }
}
