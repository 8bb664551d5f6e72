//! The CSV dialect of option values (`type=oci,"dest=a,b"`).

/// One record's fields. A field in double quotes may hold commas; `""` inside it is one quote (RFC 4180).
///
/// # Errors
/// What is wrong, in words.
pub fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => bare_field(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

type Field<'a> = (String, Option<&'a str>);

fn quoted_field(text: &str) -> Result<Field<'_>, String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err("a quoted field has no end".into());
        };
        field.push_str(before);
        match after.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &after[1..];
            }
            Some(',') => return Ok((field, Some(&after[1..]))),
            None => return Ok((field, None)),
            Some(_) => return Err("text after a quoted field".into()),
        }
    }
}

fn bare_field(text: &str) -> Result<Field<'_>, String> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err("a quote inside a field that is not quoted".into());
    }
    Ok((field.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas_and_quotes() {
        for (text, fields) in [
            ("type=oci,dest=x", vec!["type=oci", "dest=x"]),
            (r#"type=local,"dest=a,b""#, vec!["type=local", "dest=a,b"]),
            (r#""a""b""#, vec![r#"a"b"#]),
            ("", vec![""]),
            ("a,", vec!["a", ""]),
        ] {
            assert_eq!(csv_fields(text).unwrap(), fields, "{text}");
        }
        for bad in [r#""a"#, r#""a"b"#, r#"a"b"#] {
            assert!(csv_fields(bad).is_err(), "{bad}");
        }
    }
}
