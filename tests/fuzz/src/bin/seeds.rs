//! Writes the inputs that fuzzing begins with: `seeds DIRECTORY`, one directory a target.

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).expect("a directory");
    for (target, _) in targets::TARGETS {
        let place = std::path::Path::new(&directory).join(target);
        std::fs::create_dir_all(&place)?;
        for (index, seed) in targets::seeds(target).iter().enumerate() {
            std::fs::write(place.join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}
