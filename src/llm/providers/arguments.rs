//! Tool calls as chat completions servers send them: in pieces, in turns, and with half of the fields missing.

use uuid::Uuid;

use super::super::error::{ErrorClass, LlmError};
use super::super::{Chunk, Upstream};

/// The calls of one answer.
#[derive(Debug)]
pub(super) struct Calls {
    attempt: Uuid,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// What the provider calls it, as far as it does.
    index: Option<u64>,
    id: Option<String>,
    begun: bool,
    /// Arguments that came before the name.
    held: String,
}

/// One piece, as it came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece<'a> {
    pub index: Option<u64>,
    pub id: Option<&'a str>,
    pub name: Option<&'a str>,
    pub arguments: &'a str,
}

impl Calls {
    /// None yet. Calls without an id get one from the attempt's.
    pub fn new(attempt: Uuid) -> Self {
        Self { attempt, calls: Vec::new() }
    }

    /// Whether a call has begun.
    pub fn any(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Puts a piece where it belongs, by its id, else by its index, else behind the last; tells what that adds.
    pub fn push(&mut self, piece: Piece<'_>, out: &mut impl FnMut(Upstream)) -> Result<(), LlmError> {
        let at = match self.find(&piece) {
            Some(at) => at,
            None => {
                let call = Call {
                    index: piece.index,
                    id: piece.id.map(str::to_owned),
                    begun: false,
                    held: String::new(),
                };
                self.calls.push(call);
                self.calls.len() - 1
            }
        };
        let index = u16::try_from(at).map_err(|_| LlmError::new(ErrorClass::Protocol).charged(true))?;
        let attempt = self.attempt;
        let Some(call) = self.calls.get_mut(at) else { return Ok(()) };
        if call.begun {
            // A name that is said again, with every piece or at the end, changes nothing.
            arguments(index, piece.arguments, out);
            return Ok(());
        }
        if call.id.is_none() {
            call.id = piece.id.map(str::to_owned);
        }
        call.held.push_str(piece.arguments);
        let Some(name) = piece.name else { return Ok(()) };
        call.begun = true;
        let call_id = match &call.id {
            Some(id) => id.as_str().into(),
            None => format!("call_{}_{index}", attempt.simple()).into(),
        };
        out(Upstream::Chunk(Chunk::ToolCall { index, call_id, name: name.into() }));
        arguments(index, &std::mem::take(&mut call.held), out);
        Ok(())
    }

    /// A call that never got a name is nothing that anyone could answer.
    pub fn finish(&self) -> Result<(), LlmError> {
        if self.calls.iter().all(|call| call.begun) {
            return Ok(());
        }
        Err(LlmError::new(ErrorClass::Protocol).charged(true))
    }

    /// Which call a piece belongs to. The id is the surest sign: some servers give every call the index 0. Without
    /// either, a piece with a name begins a call and one without goes on with the last.
    fn find(&self, piece: &Piece<'_>) -> Option<usize> {
        if let Some(id) = piece.id
            && let Some(at) = self.calls.iter().rposition(|call| call.id.as_deref() == Some(id))
        {
            return Some(at);
        }
        match piece.index {
            Some(index) => {
                let at = self.calls.iter().rposition(|call| call.index == Some(index))?;
                let call = self.calls.get(at)?;
                let another = call.begun && piece.id.is_some() && piece.name.is_some() && call.id.is_some();
                (!another).then_some(at)
            }
            None if piece.id.is_some() || piece.name.is_some() => None,
            None => self.calls.len().checked_sub(1),
        }
    }
}

fn arguments(index: u16, delta: &str, out: &mut impl FnMut(Upstream)) {
    if !delta.is_empty() {
        out(Upstream::Chunk(Chunk::ToolArguments { index, delta: delta.into() }));
    }
}
