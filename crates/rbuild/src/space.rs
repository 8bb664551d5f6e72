//! Amounts of space, as they are typed.

use crate::exit::Usage;
use crate::request::environment;
use clap::Args;
use rbuild_frontend::number::ram_in_bytes;
use rbuild_store::{Budget, Space};

/// How much cache may stay.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BudgetArgs {
    /// Most space that the cache may take: bytes, or with a unit (20GB), or hundredths of the disk (50%); 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = space)]
    pub(crate) max_used_space: Option<Space>,
    /// Cache of this size is kept in any case
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = space)]
    pub(crate) reserved_space: Option<Space>,
    /// As much of the disk shall stay free
    #[arg(long, value_name = "SIZE", value_parser = space)]
    pub(crate) min_free_space: Option<Space>,
}

impl BudgetArgs {
    /// What is not typed is taken from `RBUILD_MAX_USED_SPACE`, `RBUILD_RESERVED_SPACE` and `RBUILD_MIN_FREE_SPACE`.
    pub(crate) fn or_environment(&self) -> Result<Budget, Usage> {
        let or = |typed: Option<Space>, name: &str| match (typed, environment(name)) {
            (None, Some(text)) if !text.trim().is_empty() => {
                space(&text).map(Some).map_err(|error| Usage::new(format!("${name}: {error}")))
            }
            (typed, _) => Ok(typed),
        };
        Ok(Budget {
            reserved: or(self.reserved_space, "RBUILD_RESERVED_SPACE")?,
            max_used: or(self.max_used_space, "RBUILD_MAX_USED_SPACE")?,
            min_free: or(self.min_free_space, "RBUILD_MIN_FREE_SPACE")?,
        })
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget { reserved: self.reserved_space, max_used: self.max_used_space, min_free: self.min_free_space }
    }
}

/// `1024`, `512MB`, `20%`.
pub(crate) fn space(text: &str) -> Result<Space, String> {
    if let Some(percent) = text.trim().strip_suffix('%') {
        return match percent.trim().parse::<u8>() {
            Ok(percent) if percent <= 100 => Ok(Space::Percent(percent)),
            _ => Err("a share of the disk is 0% to 100%".to_owned()),
        };
    }
    let bytes = ram_in_bytes(text.trim())?;
    u64::try_from(bytes).map(Space::Bytes).map_err(|_| format!("invalid size: '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_bytes_or_shares() {
        let cases = [
            ("0", Some(Space::Bytes(0))),
            ("1024", Some(Space::Bytes(1024))),
            ("10MB", Some(Space::Bytes(10 << 20))),
            ("1.5g", Some(Space::Bytes(3 << 29))),
            ("20%", Some(Space::Percent(20))),
            (" 100 % ", Some(Space::Percent(100))),
            ("101%", None),
            ("-1%", None),
            ("-1", None),
            ("ten", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(space(text).ok(), expected, "{text:?}");
        }
    }
}
