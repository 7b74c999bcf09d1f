//! The activities behind the suite's resources, as its README describes them.

use serde_json::{Value, json};

use crate::suite::Activity;

/// What an attempt does.
pub(crate) enum Reply {
    Output(Value),
    Failure {
        error: String,
        cause: String,
    },
    /// Takes so many seconds, and then does this.
    Later(u64, Box<Reply>),
}

impl Activity {
    fn text(&self, key: &str) -> String {
        let value = self.fields.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    }

    /// What it does with `input`.
    pub(crate) fn reply(&self, input: &Value) -> Reply {
        match self.behavior.as_str() {
            "echo" => {
                let instead = self.fields.get("null_as").filter(|_| input.is_null());
                Reply::Output(instead.unwrap_or(input).clone())
            }
            "constant" => Reply::Output(self.fields["output"].clone()),
            "format" => {
                let text = match input {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                Reply::Output(json!(self.text("prefix") + &text))
            }
            "repeat" => {
                let count = self.fields["count"].as_u64().expect("a count");
                let count = usize::try_from(count).expect("a small count");
                Reply::Output(json!(self.text("text").repeat(count)))
            }
            "fail" => Reply::Failure {
                error: self.text("error"),
                cause: self.text("cause"),
            },
            "sleep" => {
                let seconds = self.fields["seconds"].as_u64().expect("seconds");
                let then = Self {
                    behavior: self.text("then"),
                    fields: self.fields.clone(),
                };
                Reply::Later(seconds, Box::new(then.reply(input)))
            }
            "dispatch" => self.dispatch(input),
            other => panic!("the README knows no behaviour `{other}`"),
        }
    }

    fn dispatch(&self, input: &Value) -> Reply {
        let name = input.pointer(&self.text("on")).and_then(Value::as_str);
        let name = name.unwrap_or_default();
        let name = name
            .rsplit_once(":function:")
            .map_or(name, |(_, name)| name);
        let functions: crate::suite::Activities =
            serde_json::from_value(self.fields["functions"].clone()).expect("functions");
        let function = functions.get(name).cloned().or_else(|| {
            let default = self.fields.get("default")?;
            serde_json::from_value(default.clone()).ok()
        });
        let function = function.unwrap_or_else(|| panic!("no function `{name}`"));
        let mut payload = input.pointer(&self.text("payload")).cloned();
        if self.text("payload_text") == "parse"
            && let Some(Value::String(text)) = &payload
            && let Ok(parsed) = serde_json::from_str(text)
        {
            payload = Some(parsed);
        }
        let reply = function.reply(&payload.unwrap_or(Value::Null));
        if self.text("envelope") == "lambda_invoke" {
            wrapped(reply)
        } else {
            reply
        }
    }
}

fn wrapped(reply: Reply) -> Reply {
    match reply {
        Reply::Output(output) => Reply::Output(json!({
            "ExecutedVersion": "$LATEST",
            "Payload": output,
            "StatusCode": 200,
        })),
        Reply::Later(seconds, then) => Reply::Later(seconds, Box::new(wrapped(*then))),
        failure @ Reply::Failure { .. } => failure,
    }
}
