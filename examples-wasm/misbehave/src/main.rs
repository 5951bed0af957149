//! A command that does one thing wrong, named by its first argument, so that the host can be seen to hold.

use std::hint::black_box;

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    println!("misbehaving: {what}");
    match what.as_str() {
        "loop" => spin(),
        "allocate" => allocate(),
        "flood" => flood(),
        "trap" => trap(),
        "exit" => std::process::exit(1),
        other => {
            eprintln!("unknown argument {other:?}: loop, allocate, flood, trap or exit");
            std::process::exit(2);
        }
    }
}

/// Never yields.
fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Touches ever more memory.
fn allocate() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![1; 1 << 20]));
    }
}

/// Writes log lines as fast as it can.
fn flood() -> ! {
    let mut line = 0u64;
    loop {
        println!("line {line} of a flood that says nothing and does not end");
        line += 1;
    }
}

/// Reads outside its memory.
fn trap() {
    black_box(unsafe { std::ptr::read_volatile(0xffff_fff0 as *const u32) });
}
