//! One record of comma-separated values in Go's dialect: `--mount`, `--device`, `--output`, `--cache-to`.

/// Cuts a record into fields. A field may be quoted as a whole (`"a,b"`, `""` for a quote inside). An empty text
/// is the error `EOF`; other errors name the column.
pub fn fields(record: &str) -> Result<Vec<String>, String> {
    if record.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = match record[at..].starts_with('"') {
            true => quoted(record, at + 1)?,
            false => plain(record, at)?,
        };
        fields.push(field);
        if end == record.len() {
            return Ok(fields);
        }
        // A comma stands here; after the last one comes one more field.
        at = end + 1;
    }
}

fn error(column: usize, what: &str) -> String {
    format!("parse error on line 1, column {column}: {what}")
}

/// The field that begins at `at`, and where it ends.
fn plain(record: &str, at: usize) -> Result<(String, usize), String> {
    let field = record[at..].split(',').next().unwrap_or_default();
    match field.find('"') {
        Some(quote) => Err(error(at + quote + 1, "bare \" in non-quoted-field")),
        None => Ok((field.to_owned(), at + field.len())),
    }
}

/// The field whose text begins at `at`, behind the opening quote.
fn quoted(record: &str, mut at: usize) -> Result<(String, usize), String> {
    let mut field = String::new();
    let broken = |column| Err(error(column, "extraneous or missing \" in quoted-field"));
    loop {
        let Some(length) = record[at..].find('"') else {
            return broken(at + 1);
        };
        field.push_str(&record[at..at + length]);
        at += length + 1;
        match record.as_bytes().get(at) {
            Some(b'"') => {
                field.push('"');
                at += 1;
            }
            None | Some(b',') => return Ok((field, at)),
            Some(_) => return broken(at),
        }
    }
}
