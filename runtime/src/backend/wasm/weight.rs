//! What a component costs the compiler in memory, told from its functions before any is compiled. They are compiled one after
//! the other, so it is what the heaviest needs, and what is kept of all of them; and what its components come to, put together.
//!
//! A few hundred kilobytes can be made to need gigabytes: what is alive is followed past each place where control may go
//! elsewhere, and something is kept of a function however small it is. What was built without optimisation has as many locals,
//! but most of them for a moment.

use std::collections::HashMap;

use wasmparser_compiler::{
    CustomSectionReader, FuncValidator, FuncValidatorAllocations, FunctionBody, KnownCustom, Name, Operator,
    OperatorsReader, Parser, Payload, ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

use self::nested::Definitions;
pub(super) use self::nested::{DEEPEST, MOST_PARTS};

mod nested;
mod sizes;

/// Bytes for each instruction, call, and value that is alive at a place where control may go elsewhere: a local, or what is
/// on the operand stack. Measured at functions made for it, which need twice as much at most.
const INSTRUCTION: u64 = 64;
const CALL: u64 = 1024;
const LOCAL: u64 = 256;
const OPERAND: u64 = 64;

/// Bytes for each local and each place before the last where it is written, alive or not: the compiler's table of who wrote it.
const WRITTEN: u64 = 8;

/// Bytes that are kept of a function, and for each of its instructions.
const KEPT: u64 = 6 << 10;
const KEPT_INSTRUCTION: u64 = 32;

/// Bytes for each part of components that are put together, for each function that one calls of another, and for each number, or what
/// takes as much code, that is translated for it.
const PART: u64 = 384;
const ADAPTER: u64 = 2 * KEPT;
const TRANSLATED: u64 = 192;

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) heaviest: u64,
    pub(super) kept: u64,
    /// Of a function: each trap copies the names that are on the stack.
    pub(super) longest_name: u64,
    /// Of components that are put together, and counted no further than to one more than there may be.
    pub(super) parts: u64,
    /// Of instances within each other.
    pub(super) depth: u64,
}

/// Whether the compiler's parser takes it. Others do not bound how deep types may be nested: ask before these are.
pub(super) fn check(wasm: &[u8]) -> Result<(), String> {
    Validator::new_with_features(WasmFeatures::all()).validate_all(wasm).map(|_| ()).map_err(|error| error.to_string())
}

/// What a component weighs. Of one that is not valid, as far as it is: the compiler says what is wrong.
pub(super) fn weigh(wasm: &[u8]) -> Weight {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut room = FuncValidatorAllocations::default();
    let (mut weight, mut definitions) = (Weight::default(), Definitions::default());
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { return weight };
        if let Payload::CustomSection(section) = &payload {
            weight.longest_name = weight.longest_name.max(longest_name(section));
        }
        match validator.payload(&payload) {
            Ok(ValidPayload::Func(function, body)) => {
                let mut function = function.into_validator(room);
                weight.add(&Function::of(&mut function, &body));
                room = function.into_allocations();
            }
            Ok(_) if definitions.read(&payload, validator.types(0)).is_ok() => {}
            Ok(_) | Err(_) => return weight,
        }
    }
    // Only of what is valid to its end anything is put together.
    weight.add_parts(&definitions);
    weight
}

/// The longest name of a function that a section gives, as far as it can be read.
fn longest_name(section: &CustomSectionReader<'_>) -> u64 {
    let KnownCustom::Name(names) = section.as_known() else { return 0 };
    let functions = names.into_iter().map_while(Result::ok).filter_map(|names| match names {
        Name::Function(names) => Some(names),
        _ => None,
    });
    functions
        .flat_map(|names| names.into_iter().map_while(Result::ok))
        .map(|name| name.name.len() as u64)
        .max()
        .unwrap_or(0)
}

#[derive(Default)]
struct Function {
    instructions: u64,
    calls: u64,
    places: u64,
    operands: u64,
    locals: Locals,
}

impl Weight {
    pub(super) const NONE: Self = Self { heaviest: 0, kept: 0, longest_name: 0, parts: 0, depth: 0 };

    fn add_parts(&mut self, definitions: &Definitions<'_>) {
        let whole = definitions.whole();
        (self.parts, self.depth) = (whole.parts, whole.depth);
        self.kept += whole.parts.saturating_mul(PART) + whole.adapters * ADAPTER;
        self.kept = self.kept.saturating_add(whole.translated.saturating_mul(TRANSLATED));
    }

    fn add(&mut self, function: &Function) {
        let Function { instructions, calls, places, operands, locals } = function;
        let values = locals.alive(*places).saturating_mul(LOCAL) + locals.written * WRITTEN + operands * OPERAND;
        self.heaviest = self.heaviest.max(values.saturating_add(instructions * INSTRUCTION + calls * CALL));
        self.kept += KEPT + instructions * KEPT_INSTRUCTION;
    }
}

/// Where a function's locals are alive. Code that was not optimised has thousands that are written and read between two places
/// and nowhere else; code made for it has thousands that are alive at every place.
#[derive(Default)]
struct Locals {
    known: HashMap<u32, Local>,
    /// The blocks that are open, each with a number of its own, and how many were when each open loop had begun.
    blocks: Vec<u64>,
    loops: Vec<usize>,
    begun: u64,
    /// How many may be read where it is not known who wrote them: alive at all places.
    wide: u64,
    /// Places past which the others are alive, of all together.
    narrow: u64,
    /// Places before the last write of each, of all together.
    written: u64,
}

#[derive(Clone, Copy, Default)]
struct Local {
    /// Places before its last write.
    written: u64,
    value: Value,
}

/// What a local has.
#[derive(Clone, Copy, Default)]
enum Value {
    /// What it began with, or what nobody has read since it was written in one of several ways.
    #[default]
    Unknown,
    /// Counted as alive everywhere.
    Wide,
    /// What was written while so many blocks were open, in the block of this number, and is alive past so many places by now.
    Written { open: usize, block: u64, places: u64 },
}

impl Locals {
    /// At how many places how many of them are alive, of a function with so many.
    fn alive(&self, places: u64) -> u64 {
        let all = places.saturating_mul(self.known.len() as u64);
        places.saturating_mul(self.wide).saturating_add(self.narrow).min(all)
    }

    fn open(&mut self, is_loop: bool) {
        self.begun += 1;
        self.blocks.push(self.begun);
        if is_loop {
            self.loops.push(self.blocks.len());
        }
    }

    fn close(&mut self) {
        if self.loops.last() == Some(&self.blocks.len()) {
            self.loops.pop();
        }
        self.blocks.pop();
    }

    fn write(&mut self, index: u32, places: u64) {
        let local = self.known.entry(index).or_default();
        self.written += places - local.written;
        local.written = places;
        if !matches!(local.value, Value::Wide) {
            let block = self.blocks.last().copied().unwrap_or_default();
            local.value = Value::Written { open: self.blocks.len(), block, places };
        }
    }

    fn read(&mut self, index: u32, at: u64) {
        let local = self.known.entry(index).or_default();
        match &mut local.value {
            Value::Wide => {}
            // Written in a block that is open still, and no loop has begun since: there is nothing else that may be read.
            Value::Written { open, block, places }
                if open.checked_sub(1).map_or(Some(&0), |last| self.blocks.get(last)) == Some(block)
                    && self.loops.last().is_none_or(|begun| begun <= open) =>
            {
                self.narrow += at - *places;
                *places = at;
            }
            value => {
                *value = Value::Wide;
                self.wide += 1;
            }
        }
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
    ) -> wasmparser_compiler::Result<()> {
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
            O::LocalGet { local_index } => self.locals.read(*local_index, self.places),
            O::LocalSet { local_index } | O::LocalTee { local_index } => self.locals.write(*local_index, self.places),
            O::Block { .. } | O::If { .. } | O::TryTable { .. } | O::Try { .. } => {
                self.locals.open(false);
                return 1;
            }
            O::Loop { .. } => {
                self.locals.open(true);
                return 1;
            }
            O::Else | O::Catch { .. } | O::CatchAll => {
                self.locals.close();
                self.locals.open(false);
                return 1;
            }
            O::End | O::Delegate { .. } => self.locals.close(),
            O::BrIf { .. }
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
        let looped = "(loop (br_if 0 (local.get N)) (local.set N (i32.const 1)))";
        assert!(heaviest(1000, looped, 5000) > 2 << 30);
        assert!(heaviest(10, looped, 5000) < 64 << 20);
        assert!(heaviest(0, "(call 0)", 5000) > 5000 * CALL);
        let piled = "(i32.const 1) (if (i32.const 1) (then))";
        assert!(heaviest(0, &format!("{} unreachable", piled.repeat(5000)), 1) > 12_000_000 * OPERAND);
    }

    #[test]
    fn what_is_written_and_read_at_once_weighs_little_however_much_there_is_of_it() {
        let checked = "(local.set N (i32.const 1)) (if (local.get N) (then)) (drop (local.get N))";
        let weight = heaviest(5000, checked, 5000);
        assert!(weight < 160 << 20, "{weight}");
        assert!(weight > 5000 * 5000 / 2 * WRITTEN, "{weight}");
        // Read in a loop, or where two ways meet, it may be another's.
        for wide in [
            "(local.set N (i32.const 1)) (loop (br_if 0 (local.get N)) (local.set N (i32.const 2)))",
            "(if (i32.const 1) (then (local.set N (i32.const 1)))) (drop (local.get N))",
        ] {
            assert!(heaviest(1000, wide, 5000) > 1 << 30, "{wide}");
        }
    }

    #[test]
    fn something_is_kept_of_each_function_of_all_modules() {
        let module = format!("(core module {})", "(func)".repeat(500));
        let weight = weigh(&wat::parse_str(format!("(component {module} {module})")).unwrap());
        assert!(weight.kept > 1000 * KEPT && weight.heaviest < KEPT);
    }

    #[test]
    fn the_longest_name_of_a_function_is_known() {
        let weight = weigh(
            &wat::parse_str("(component (core module (func $a) (func $bcd) (global $efgh i32 (i32.const 0))))")
                .unwrap(),
        );
        assert_eq!(weight.longest_name, 3);
    }

    #[test]
    fn what_is_not_valid_weighs_what_comes_before() {
        assert_eq!(weigh(b"no wasm"), Weight::default());
        assert!(heaviest(0, " i32.add", 3) <= INSTRUCTION);
    }
}
