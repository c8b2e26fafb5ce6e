//! A component: which of its functions is called, whether it would load, and one call of it.

use super::engine::Sandbox;
use super::guest::Guest;
use super::loading::{CallOutcome, LoadError, ModuleNeeds};
use super::typed;
use taskmaster_module::{EntryPoint, ParamsStage, Signature};
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{self, ComponentExportIndex, InstancePre, Val};

/// The exit code of a command that may succeed when it is tried again.
const RETRYABLE: i32 = 75;

/// The exit code of a command that would fail again.
const PERMANENT: i32 = 65;

/// The exit code of a command that does not say whether another try would help.
const FAILED: i32 = 1;

/// A component that is compiled, linked and ready to be instantiated any number of times.
pub struct ComponentModule {
    pre: InstancePre<Guest>,
    function: ComponentExportIndex,
    call: CallStyle,
    needs: ModuleNeeds,
}

/// How the component's function is called.
enum CallStyle {
    /// Without arguments, as a command.
    Run,
    /// With the params as JSON text.
    Task,
    /// With the params converted to the types of this signature.
    Typed(Signature),
}

impl ComponentModule {
    /// Links `component`; refuses what could not run, with the reason.
    pub(super) fn link(
        sandbox: &Sandbox,
        component: &component::Component,
    ) -> Result<ComponentModule, LoadError> {
        let entry = EntryPoint::choose(typed::exports(component)).map_err(LoadError::NoFunction)?;
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
            return Err(LoadError::FunctionNotFound(name.to_owned()));
        };

        let call = match entry {
            EntryPoint::Run(_) => CallStyle::Run,
            EntryPoint::Function { signature, .. } => CallStyle::Typed(signature),
            EntryPoint::Task | EntryPoint::Start => CallStyle::Task,
        };
        let linker = sandbox.component_linker();
        let pre = linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        Ok(ComponentModule {
            pre,
            function,
            call,
            needs: needs(component),
        })
    }

    /// What the component could use.
    pub(super) fn needs(&self) -> ModuleNeeds {
        self.needs
    }

    /// Whether the component is a command, whose params are stdin and whose result is stdout.
    pub(super) fn is_command(&self) -> bool {
        matches!(self.call, CallStyle::Run)
    }

    /// One run, in an instance of its own.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        params: &[u8],
    ) -> wasmtime::Result<CallOutcome> {
        let arguments = match self.arguments(params) {
            Ok(arguments) => arguments,
            Err(text) => return Ok(CallOutcome::Params(text)),
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
        Ok(self.outcome(results.pop()))
    }

    fn arguments(&self, params: &[u8]) -> Result<Vec<Val>, String> {
        // Params are JSON, and JSON is text.
        let text = || std::str::from_utf8(params).map_err(|_| "params are no text".to_owned());
        match &self.call {
            CallStyle::Run => Ok(Vec::new()),
            CallStyle::Task => Ok(vec![Val::String(match text()? {
                "" => "null".into(),
                text => text.into(),
            })]),
            CallStyle::Typed(signature) => {
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

    fn outcome(&self, result: Option<Val>) -> CallOutcome {
        match (&self.call, result) {
            (CallStyle::Run, Some(Val::Result(Err(_)))) => CallOutcome::Exit(FAILED),
            (CallStyle::Run, _) => CallOutcome::Stdout,
            (_, Some(Val::Result(Err(error)))) => failed(error.map(|error| *error)),
            (CallStyle::Task, Some(Val::Result(Ok(Some(text))))) => CallOutcome::Text(plain(&text)),
            (_, Some(Val::Result(Ok(value)))) => {
                CallOutcome::Text(value.as_deref().map_or_else(null, typed::json))
            }
            (_, value) => CallOutcome::Text(value.as_ref().map_or_else(null, typed::json)),
        }
    }
}

fn null() -> String {
    "null".into()
}

/// `retryable` and `permanent` are the cases of the error in our own WIT world. They count for
/// every component whose error has cases of these names.
fn failed(error: Option<Val>) -> CallOutcome {
    match error {
        None => CallOutcome::Failed("it failed and did not say why".into(), FAILED),
        Some(Val::Variant(case, Some(text))) if case == "retryable" => {
            CallOutcome::Failed(plain(&text), RETRYABLE)
        }
        Some(Val::Variant(case, Some(text))) if case == "permanent" => {
            CallOutcome::Failed(plain(&text), PERMANENT)
        }
        Some(other) => CallOutcome::Failed(plain(&other), FAILED),
    }
}

/// A string unchanged, other values as JSON.
fn plain(value: &Val) -> String {
    match value {
        Val::String(text) => text.clone(),
        other => typed::json(other),
    }
}

fn needs(component: &component::Component) -> ModuleNeeds {
    let ty = component.component_type();
    let mut needs = ModuleNeeds::default();
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
