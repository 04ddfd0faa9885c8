fn main() {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path).unwrap();
        match ptx::decode(&text) {
            Ok(programs) => println!(
                "{path}: {} kernels, {} instructions",
                programs.len(),
                programs.iter().map(|p| p.instructions()).sum::<usize>()
            ),
            Err(e) => println!("{path}: {e}"),
        }
    }
}
