//! `componentize IN OUT`: makes a component of a preview-1 core module, as the node does when it pulls one. The example
//! components are built with it where the compiler has no `wasm32-wasip2` target.

use std::error::Error;

use wherry_runtime::backend::wasm::componentize;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: componentize IN OUT".into());
    };
    std::fs::write(output, componentize(&std::fs::read(input)?)?)?;
    Ok(())
}
