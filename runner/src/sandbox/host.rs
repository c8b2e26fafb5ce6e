//! The functions that runners offer to a component of the world in `tasks/wit`. They mean what the
//! directives of a command mean.

use super::directive::{Directive, DirectiveError};
use super::guest::Guest;
use std::time::Instant;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance};

/// Both names by which a component may import the interface.
const INTERFACE_NAMES: [&str; 2] = ["taskmaster:task/host@1.0.0", "taskmaster:task/host"];

type Context<'a> = StoreContextMut<'a, Guest>;

/// Adds the functions as an interface, and each as a function of a world.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in INTERFACE_NAMES {
        add(&mut linker.instance(name)?)?;
    }
    add(&mut linker.root())
}

fn add(to: &mut LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    to.func_wrap(
        "progress",
        |mut context: Context<'_>, (fraction, note): (f32, String)| {
            enter(&mut context)?;
            obey(&context, Directive::progress(f64::from(fraction), &note));
            Ok(())
        },
    )?;
    to.func_wrap(
        "partial",
        |mut context: Context<'_>, (value,): (String,)| {
            enter(&mut context)?;
            obey(&context, Directive::partial(&value));
            Ok(())
        },
    )?;
    to.func_wrap("log", |mut context: Context<'_>, (text,): (String,)| {
        enter(&mut context)?;
        context.data().streams.log(&text);
        Ok(())
    })?;
    to.func_wrap("is-cancelled", |context: Context<'_>, (): ()| {
        // A cancelled guest gets its answer here, and is ended where it goes on.
        Ok((context.data().stop.is_cancelled(),))
    })?;
    to.func_wrap("add", |mut context: Context<'_>, (task,): (String,)| {
        enter(&mut context)?;
        let added =
            Directive::add(&task).and_then(|directive| context.data().streams.obey(directive));
        let id = added.map(|id| id.map_or_else(String::new, |id| id.to_string()));
        Ok((id.map_err(|error| error.to_string()),))
    })?;
    to.func_wrap("then", |mut context: Context<'_>, (task,): (String,)| {
        enter(&mut context)?;
        let taken =
            Directive::then(&task).and_then(|directive| context.data().streams.obey(directive));
        Ok((taken.map(drop).map_err(|error| error.to_string()),))
    })?;
    to.func_wrap(
        "cache",
        |mut context: Context<'_>, (ttl_seconds,): (u32,)| {
            enter(&mut context)?;
            obey(&context, Directive::cache(&ttl_seconds.to_string()));
            Ok(())
        },
    )
}

/// Every function begins here but the one that asks whether to stop.
fn enter(context: &mut Context<'_>) -> wasmtime::Result<()> {
    Ok(context.data_mut().look(Instant::now())?)
}

/// Obeys a directive of a function that returns nothing. A mistake becomes a warning in the log, as
/// it does for a line of stderr.
fn obey(context: &Context<'_>, directive: Result<Directive, DirectiveError>) {
    context.data().streams.obey_or_warn(directive);
}
