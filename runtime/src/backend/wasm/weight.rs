//! What a component costs the compiler in memory, told from its functions before any is compiled. They are compiled one after
//! the other, so it is what the heaviest needs, and what is kept of all of them.
//!
//! A few hundred kilobytes can be made to need gigabytes: what is alive is followed past each place where control may go
//! elsewhere, and something is kept of a function however small it is. The heaviest function of SpiderMonkey weighs 106 MiB
//! here, that of Python 42, those of Rust's components 14 at most.

use wasmparser::{
    FuncValidator, FuncValidatorAllocations, FunctionBody, Operator, OperatorsReader, Parser, ValidPayload, Validator,
    ValidatorResources, WasmFeatures,
};

/// Bytes for each instruction, call, and value that is alive at a place where control may go elsewhere: a local, or what is
/// on the operand stack. Measured at functions made for it, which need from half to twice as much.
const INSTRUCTION: u64 = 64;
const CALL: u64 = 1024;
const LOCAL: u64 = 256;
const OPERAND: u64 = 64;

/// Bytes that are kept of a function, and for each of its instructions.
const KEPT: u64 = 6 << 10;
const KEPT_INSTRUCTION: u64 = 32;

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) heaviest: u64,
    pub(super) kept: u64,
}

/// What a component weighs. Of one that is not valid, as far as it is: the compiler says what is wrong.
pub(super) fn weigh(wasm: &[u8]) -> Weight {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut room = FuncValidatorAllocations::default();
    let mut weight = Weight::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        match validator.payload(&payload) {
            Ok(ValidPayload::Func(function, body)) => {
                let mut function = function.into_validator(room);
                weight.add(&Function::of(&mut function, &body));
                room = function.into_allocations();
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    weight
}

#[derive(Default)]
struct Function {
    instructions: u64,
    calls: u64,
    places: u64,
    locals: u64,
    operands: u64,
}

impl Weight {
    fn add(&mut self, function: &Function) {
        let Function { instructions, calls, places, locals, operands } = function;
        let alive = places.saturating_mul(*locals).saturating_mul(LOCAL).saturating_add(operands * OPERAND);
        self.heaviest = self.heaviest.max(alive.saturating_add(instructions * INSTRUCTION + calls * CALL));
        self.kept += KEPT + instructions * KEPT_INSTRUCTION;
    }
}

impl Function {
    fn of(validator: &mut FuncValidator<ValidatorResources>, body: &FunctionBody<'_>) -> Self {
        let mut seen = Self::default();
        // What follows an error is not compiled.
        let _ = seen.read(validator, body);
        seen
    }

    fn read(
        &mut self,
        validator: &mut FuncValidator<ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> wasmparser::Result<()> {
        let mut reader = body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        let mut operators = OperatorsReader::new(reader);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            self.instructions += 1;
            let places = self.places_of(&operator);
            self.places += places;
            self.operands += places * u64::from(validator.operand_stack_height());
            validator.op(offset, &operator)?;
        }
        Ok(())
    }

    /// To how many places control may go.
    fn places_of(&mut self, operator: &Operator<'_>) -> u64 {
        use Operator as O;
        match operator {
            O::Call { .. }
            | O::CallIndirect { .. }
            | O::CallRef { .. }
            | O::ReturnCall { .. }
            | O::ReturnCallIndirect { .. }
            | O::ReturnCallRef { .. } => self.calls += 1,
            // Those that nothing uses cost nothing.
            O::LocalGet { local_index } | O::LocalSet { local_index } | O::LocalTee { local_index } => {
                self.locals = self.locals.max(u64::from(*local_index) + 1);
            }
            O::Block { .. }
            | O::Loop { .. }
            | O::If { .. }
            | O::Else
            | O::TryTable { .. }
            | O::BrIf { .. }
            | O::BrOnNull { .. }
            | O::BrOnNonNull { .. }
            | O::BrOnCast { .. }
            | O::BrOnCastFail { .. } => return 1,
            O::BrTable { targets } => return u64::from(targets.len()) + 1,
            _ => {}
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn heaviest(locals: usize, body: &str, times: usize) -> u64 {
        let mut text = format!("(component (core module (func (local{})", " i32".repeat(locals));
        for at in 0..times {
            let _ = write!(text, "{}", body.replace('N', &(at % locals.max(1)).to_string()));
        }
        weigh(&wat::parse_str(text + ")))").unwrap()).heaviest
    }

    #[test]
    fn what_is_alive_past_many_places_weighs_more_than_all_instructions() {
        let plain = "(local.set N (i32.add (local.get N) (i32.const 1)))";
        assert!(heaviest(1000, plain, 5000) < 2 << 20);
        let looped = "(loop (local.set N (i32.const 1)) (br_if 0 (local.get N)))";
        assert!(heaviest(1000, looped, 5000) > 2 << 30);
        assert!(heaviest(10, looped, 5000) < 64 << 20);
        assert!(heaviest(0, "(call 0)", 5000) > 5000 * CALL);
        let piled = "(i32.const 1) (if (i32.const 1) (then))";
        assert!(heaviest(0, &format!("{} unreachable", piled.repeat(5000)), 1) > 12_000_000 * OPERAND);
    }

    #[test]
    fn something_is_kept_of_each_function_of_all_modules() {
        let module = format!("(core module {})", "(func)".repeat(500));
        let weight = weigh(&wat::parse_str(format!("(component {module} {module})")).unwrap());
        assert!(weight.kept > 1000 * KEPT && weight.heaviest < KEPT);
    }

    #[test]
    fn what_is_not_valid_weighs_what_comes_before() {
        assert_eq!(weigh(b"no wasm"), Weight::default());
        assert!(heaviest(0, " i32.add", 3) <= INSTRUCTION);
    }
}
