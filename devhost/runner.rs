//! One envelope from end to end: the handler's answer, then its outputs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::answer::Answer;
use crate::functions::Function;
use crate::invoker::{InvocationError, Invoker};
use crate::outputs;
use crate::queue::RunMessage;
use crate::storage::{Messages, StorageFailure, Task};
use crate::timer::RunTimer;

/// Runs envelopes of every trigger.
pub struct Runner {
    invoker: Invoker,
    /// Queues of output bindings by function and binding name.
    queues: HashMap<(String, String), Arc<dyn Messages>>,
    encoding: crate::host_json::MessageEncoding,
}

impl Runner {
    pub fn new(
        invoker: Invoker,
        queues: HashMap<(String, String), Arc<dyn Messages>>,
        encoding: crate::host_json::MessageEncoding,
    ) -> Self {
        Runner { invoker, queues, encoding }
    }

    /// Invokes and writes queue outputs: after the answer, before the trigger counts as done; not transactional.
    pub async fn run(
        &self,
        function: &Function,
        envelope: Vec<u8>,
        reason: &str,
    ) -> Result<Answer, InvocationError> {
        let answer = self.invoker.invoke(function, reason, envelope).await?;
        for output in function.outputs().filter(|output| output.kind.eq_ignore_ascii_case("queue")) {
            let failed = |reason: String| InvocationError::Outputs(format!("{}: {reason}", output.name));
            let value = outputs::of_binding(&answer, &output.name);
            let messages = outputs::queue_messages(value, output.binary).map_err(failed)?;
            let Some(queue) = self.queues.get(&(function.name.clone(), output.name.clone())) else {
                return Err(failed("it names no queue (queueName)".to_owned()));
            };
            for message in messages {
                let text = outputs::encode(&message, self.encoding).map_err(failed)?;
                queue.put(&text).await.map_err(|cause| failed(cause.to_string()))?;
            }
        }
        Ok(answer)
    }

    async fn settle(
        &self,
        function: &Function,
        envelope: Vec<u8>,
        reason: &str,
    ) -> Result<(), StorageFailure> {
        // Already logged with its invocation id; listeners need only know that it failed.
        self.run(function, envelope, reason)
            .await
            .map(drop)
            .map_err(|cause| StorageFailure::Other(cause.to_string()))
    }
}

impl RunMessage for Runner {
    fn run<'a>(&'a self, function: &'a Function, envelope: Vec<u8>, reason: &'a str) -> Task<'a, ()> {
        Box::pin(self.settle(function, envelope, reason))
    }
}

impl RunTimer for Runner {
    fn run<'a>(&'a self, function: &'a Function, envelope: Vec<u8>, reason: &'a str) -> Task<'a, ()> {
        Box::pin(self.settle(function, envelope, reason))
    }
}
