//! Finds the options that a config file names, and what would be typed for its values.

use super::setting::{ConfigFileError, Key, ROLES, Setting, TOKEN};
use clap::{Arg, ArgAction, Command};
use std::path::Path;
use taskmaster_protocol::near;
use toml::{Table, Value};

/// Finds the options that the keys of a file name.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    /// The commands with their options.
    pub(super) tree: Command,
}

impl Reader<'_> {
    pub(super) fn settings(&self, table: Table) -> Result<Vec<Setting>, ConfigFileError> {
        let mut settings = Vec::new();
        for (key, value) in table {
            let Value::Table(options) = value else {
                let key = Key {
                    role: None,
                    option: key,
                };
                settings.push(self.setting(key, &value)?);
                continue;
            };
            let Some(role) = ROLES.into_iter().find(|role| *role == key) else {
                let hint = near::hint(&key, ROLES);
                return Err(self.unknown(format!(
                    "there is no table [{key}]{hint}; tables are [master], [runner] and [up]"
                )));
            };
            for (option, value) in options {
                let role = Some(role);
                settings.push(self.setting(Key { role, option }, &value)?);
            }
        }
        Ok(settings)
    }

    fn setting(&self, key: Key, value: &Value) -> Result<Setting, ConfigFileError> {
        let arg = self
            .options(key.role)
            .find(|arg| arg.get_long() == Some(&key.option))
            .ok_or_else(|| self.no_option(&key))?;
        let source = match key.option.as_str() {
            TOKEN => "…".to_owned(),
            _ => source(value),
        };
        match texts(arg, value) {
            Ok(values) => Ok(Setting {
                key,
                values,
                is_flag: matches!(arg.get_action(), ArgAction::SetTrue),
                source,
            }),
            Err(why) => Err(ConfigFileError::WrongValue {
                path: self.path.to_owned(),
                key: key.to_string(),
                value: source,
                why: why.to_owned(),
            }),
        }
    }

    /// The options of a role, and those of every command.
    fn options(&self, role: Option<&str>) -> impl Iterator<Item = &Arg> {
        let own = role.and_then(|role| self.tree.find_subcommand(role));
        own.into_iter()
            .flat_map(Command::get_arguments)
            .chain(self.tree.get_arguments())
            .filter(|arg| arg.get_long().is_some_and(|long| long != "config"))
    }

    fn no_option(&self, key: &Key) -> ConfigFileError {
        let option = &key.option;
        let hint = near::hint(option, self.options(key.role).filter_map(Arg::get_long));
        if let Some(role) = key.role {
            return self.unknown(format!(
                "[{role}] {option}: `taskmaster {role}` has no such option{hint}"
            ));
        }
        let tables = self.tables_with(option);
        self.unknown(if tables.is_empty() {
            format!("{option}: no such option is common to all commands{hint}")
        } else {
            format!("{option}: this option belongs into the table {tables}")
        })
    }

    /// The tables in which an option may stand, as `[master] or [up]`.
    fn tables_with(&self, option: &str) -> String {
        let has = |role: &&str| {
            self.options(Some(role))
                .any(|arg| arg.get_long() == Some(option))
        };
        let tables: Vec<String> = ROLES
            .into_iter()
            .filter(has)
            .map(|role| format!("[{role}]"))
            .collect();
        tables.join(" or ")
    }

    fn unknown(&self, why: String) -> ConfigFileError {
        ConfigFileError::UnknownKey {
            path: self.path.to_owned(),
            why,
        }
    }
}

/// What would be typed for `value`, or what would be right.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, &'static str> {
    match arg.get_action() {
        ArgAction::SetTrue => match value {
            Value::Boolean(true) => Ok(vec!["true".to_owned()]),
            Value::Boolean(false) => Ok(vec!["false".to_owned()]),
            _ => Err("the option is a flag: true or false"),
        },
        ArgAction::Append => match value {
            Value::Array(items) => items.iter().map(text).collect::<Option<_>>(),
            single => text(single).map(|text| vec![text]),
        }
        .ok_or("the option can be repeated: a list of texts or numbers"),
        _ => text(value)
            .map(|text| vec![text])
            .ok_or("the option takes one value: a text or a number"),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// A value as it may stand in a file.
fn source(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        Value::Datetime(moment) => moment.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(source).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(_) => "{ … }".to_owned(),
    }
}
