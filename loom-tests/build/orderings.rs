//! Finds every ordering and every fence in the algorithm files, and writes the files anew with each of
//! them asking, when it is used, whether it is the one that is weakened: one build, all mutants.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where the algorithms are, from this package.
const FOLDERS: [&str; 3] = ["ring", "ring/broadcast", "wait"];
const FENCES: [&str; 4] = [
    "full_fence();",
    "light_fence();",
    "fence_after_exchange();",
    "barrier();",
];

/// Writes `OUT_DIR/weakened/<folder>_<file>.rs`, and `OUT_DIR/sites.rs` with the sites found and, for each
/// file of models, the models in it.
pub(crate) fn generate(out: &Path) {
    let to = out.join("weakened");
    std::fs::create_dir_all(&to).unwrap();
    let mut table = String::from("pub(crate) const SITES: &[Site] = &[\n");
    let mut number = 0;
    for folder in FOLDERS {
        for path in sources(&format!("../src/{folder}")) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let source = std::fs::read_to_string(&path).unwrap();
            // Without the file's own tests.
            let source = source.split("#[cfg(test)]").next().unwrap();
            let weakened = rewrite(source, &format!("{folder}/{name}"), &mut number, &mut table);
            let file = format!("{folder}/{name}.rs").replace('/', "_");
            std::fs::write(to.join(file), weakened).unwrap();
        }
    }
    table.push_str("];\n");
    for path in sources("tests/models") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        let models = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub(crate) fn ")?.strip_suffix("() {"))
            .map(|model| format!("(\"{model}\", models::{model}), "))
            .collect::<String>();
        let list = format!("pub(crate) const MODELS: &[(&str, fn())] = &[{models}];\n");
        std::fs::write(out.join(format!("models_{name}.rs")), list).unwrap();
    }
    std::fs::write(out.join("sites.rs"), table).unwrap();
}

fn sources(folder: &str) -> Vec<PathBuf> {
    println!("cargo::rerun-if-changed={folder}");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    paths.sort();
    for path in &paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    paths
}

/// The source with its sites replaced and without its comments (an inner one would not compile where
/// this is included), line by line as it was.
fn rewrite(source: &str, file: &str, number: &mut usize, table: &mut String) -> String {
    let mut weakened = String::new();
    let mut function = "";
    let mut nth = 0;
    for (index, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        if let Some(name) = function_in(code) {
            (function, nth) = (name, 0);
        }
        let mut rest = code;
        while let Some((at, len, what)) = next_site(rest) {
            nth += 1;
            let site = &rest[at..at + len];
            weakened.push_str(&rest[..at]);
            if what == "fence" && rest[..at].trim_end().ends_with('=') {
                // Whether it reached all processors is asked: without it, it did not.
                write!(weakened, "crate::mutant::keeps({number}) && {site}").unwrap();
            } else if what == "fence" {
                write!(weakened, "if crate::mutant::keeps({number}) {{ {site} }}").unwrap();
            } else {
                write!(weakened, "crate::mutant::order({number}, {site})").unwrap();
            }
            writeln!(
                table,
                "    Site {{ file: {file:?}, function: {function:?}, nth: {nth}, line: {}, what: {what:?} }},",
                index + 1
            )
            .unwrap();
            *number += 1;
            rest = &rest[at + len..];
        }
        // A module in a file of its own, of an algorithm that has several.
        let module = rest
            .strip_prefix("mod ")
            .and_then(|name| name.strip_suffix(';'));
        if let (Some(module), Some(folder)) = (module, file.strip_suffix("/mod")) {
            let folder = folder.replace('/', "_");
            write!(
                weakened,
                "mod {module} {{ include!(concat!(env!(\"OUT_DIR\"), \"/weakened/{folder}_{module}.rs\")); }}"
            )
            .unwrap();
        } else {
            weakened.push_str(rest);
        }
        weakened.push('\n');
    }
    weakened
}

fn function_in(code: &str) -> Option<&str> {
    let after = code.split_once("fn ")?;
    let starts = after.0.chars().last().is_none_or(char::is_whitespace);
    let name = after
        .1
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    (starts && !name.is_empty()).then_some(name)
}

/// Where the next site of `code` begins, how long it is, and its ordering, or "fence".
fn next_site(code: &str) -> Option<(usize, usize, &str)> {
    let ordering = code.find("Ordering::").map(|at| {
        let name = &code[at + "Ordering::".len()..];
        let len = name
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(name.len());
        (at, "Ordering::".len() + len, &name[..len])
    });
    let fences = FENCES
        .iter()
        .filter_map(|fence| Some((code.find(fence)?, fence.len(), "fence")));
    // A fence with an ordering of its own is taken as a whole.
    let plain = code.find("fence(Ordering::").and_then(|at| {
        let len = code[at..].find(';')? + 1;
        let is_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        is_word.then_some((at, len, "fence"))
    });
    let fences = fences.chain(plain);
    fences.chain(ordering).min_by_key(|site| site.0)
}
