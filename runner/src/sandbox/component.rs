//! A component: which of its functions is called, whether it would load, and one call of it.

use super::program::{Answer, LoadError, Needs};
use super::{Guest, Sandbox, typed};
use taskmaster_module::{EntryPoint, ParamsStage, Signature};
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{self, ComponentExportIndex, InstancePre, Val};

/// What the exit code of a command says of trying again, said by a component.
const RETRYABLE: i32 = 75;
const PERMANENT: i32 = 65;
/// It says nothing of it.
const FAILED: i32 = 1;

/// A component that is compiled, linked and ready to be instantiated any number of times.
pub struct Component {
    pre: InstancePre<Guest>,
    function: ComponentExportIndex,
    call: Call,
    needs: Needs,
}

/// How its function is called.
enum Call {
    /// Without anything, as a command.
    Run,
    /// With params as text.
    Task,
    /// With params read by these types.
    Typed(Signature),
}

impl Component {
    /// Links `component`; refuses what could not run, with the reason.
    pub(super) fn link(
        sandbox: &Sandbox,
        component: &component::Component,
    ) -> Result<Component, LoadError> {
        let entry = EntryPoint::choose(typed::exports(component)).map_err(LoadError)?;
        let (interface, name) = match &entry {
            EntryPoint::Run(interface) => (Some(interface.as_str()), "run"),
            EntryPoint::Function {
                interface, name, ..
            } => (interface.as_deref(), name.as_str()),
            EntryPoint::Task | EntryPoint::Start => (None, "run"),
        };
        let index = match interface {
            None => component.get_export_index(None, name),
            Some(interface) => component
                .get_export_index(None, interface)
                .and_then(|interface| component.get_export_index(Some(&interface), name)),
        };
        let Some(function) = index else {
            return Err(LoadError(format!("its `{name}` cannot be found")));
        };
        let call = match entry {
            EntryPoint::Run(_) => Call::Run,
            EntryPoint::Function { signature, .. } => Call::Typed(signature),
            EntryPoint::Task | EntryPoint::Start => Call::Task,
        };
        let linker = sandbox.component_linker();
        let pre = linker
            .instantiate_pre(component)
            .map_err(|error| LoadError(format!("{error:#}")))?;
        Ok(Component {
            pre,
            function,
            call,
            needs: needs(component),
        })
    }

    /// What it could use.
    pub(super) fn needs(&self) -> Needs {
        self.needs
    }

    /// Whether it is a command: its params are stdin, its result is stdout.
    pub(super) fn is_command(&self) -> bool {
        matches!(self.call, Call::Run)
    }

    /// One run, from an instance of its own.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        params: &[u8],
    ) -> wasmtime::Result<Answer> {
        let arguments = match self.arguments(params) {
            Ok(arguments) => arguments,
            Err(text) => return Ok(Answer::Params(text)),
        };
        let instance = self.pre.instantiate_async(&mut *store).await?;
        store.data_mut().called = true;
        let Some(function) = instance.get_func(&mut *store, self.function) else {
            wasmtime::bail!("its function is gone")
        };
        let mut results = vec![Val::Bool(false); function.ty(&*store).results().len()];
        function
            .call_async(&mut *store, &arguments, &mut results)
            .await?;
        Ok(self.answer(results.pop()))
    }

    fn arguments(&self, params: &[u8]) -> Result<Vec<Val>, String> {
        // Params are JSON, and so text.
        let text = || std::str::from_utf8(params).map_err(|_| "params are no text".to_owned());
        match &self.call {
            Call::Run => Ok(Vec::new()),
            Call::Task => Ok(vec![Val::String(match text()? {
                "" => "null".into(),
                text => text.into(),
            })]),
            Call::Typed(signature) => {
                let values = signature.arguments(Some(text()?), ParamsStage::Replaced);
                let values = values.map_err(|refusal| refusal.message)?;
                Ok(signature
                    .params
                    .iter()
                    .zip(values)
                    .map(|((_, ty), value)| typed::val(ty, value))
                    .collect())
            }
        }
    }

    fn answer(&self, result: Option<Val>) -> Answer {
        match (&self.call, result) {
            (Call::Run, Some(Val::Result(Err(_)))) => Answer::Exit(FAILED),
            (Call::Run, _) => Answer::Stdout,
            (_, Some(Val::Result(Err(error)))) => failed(error.map(|error| *error)),
            (Call::Task, Some(Val::Result(Ok(Some(text))))) => Answer::Text(plain(&text)),
            (_, Some(Val::Result(Ok(value)))) => {
                Answer::Text(value.as_deref().map_or_else(null, typed::json))
            }
            (_, value) => Answer::Text(value.as_ref().map_or_else(null, typed::json)),
        }
    }
}

fn null() -> String {
    "null".into()
}

/// `retryable` and `permanent` are those of our world's error; another component that names its
/// cases so means the same.
fn failed(error: Option<Val>) -> Answer {
    match error {
        None => Answer::Failed("it failed and did not say why".into(), FAILED),
        Some(Val::Variant(case, Some(text))) if case == "retryable" => {
            Answer::Failed(plain(&text), RETRYABLE)
        }
        Some(Val::Variant(case, Some(text))) if case == "permanent" => {
            Answer::Failed(plain(&text), PERMANENT)
        }
        Some(other) => Answer::Failed(plain(&other), FAILED),
    }
}

/// A string as it is, other values as JSON.
fn plain(value: &Val) -> String {
    match value {
        Val::String(text) => text.clone(),
        other => typed::json(other),
    }
}

fn needs(component: &component::Component) -> Needs {
    let ty = component.component_type();
    let mut needs = Needs {
        files: false,
        args: false,
        env: false,
    };
    for (name, import) in ty.imports(component.engine()) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        needs.files |= name.starts_with("wasi:filesystem/");
        if name.starts_with("wasi:cli/environment@") {
            let has = |function: &str| interface.get_export(component.engine(), function).is_some();
            needs.args |= has("get-arguments");
            needs.env |= has("get-environment");
        }
    }
    needs
}

#[cfg(test)]
mod tests;
