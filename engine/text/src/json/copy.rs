//! JSON written anew, without blanks and with the escapes it needs: how functions hand out pieces of a text.

use super::escape::unescape;
use super::scan::{Cursor, Scan, Start, Text};
use crate::view::push_json_string;
use crate::write::push_f64;

/// Appends what the string is that stands at `text`, without quotes.
pub(super) fn push_content(out: &mut String, cursor: &Cursor<'_>, text: Text) {
    let raw = &cursor.text[text.start..text.end];
    let mut content = Vec::new();
    match text.escaped {
        true => unescape(raw, &mut content),
        false => content.extend_from_slice(raw),
    }
    out.push_str(&String::from_utf8_lossy(&content));
}

/// Appends the value at the cursor, and goes over it.
pub(super) fn push_value(out: &mut String, cursor: &mut Cursor<'_>, depth: usize) -> Scan<()> {
    match cursor.start()? {
        Start::Null => push_word(out, cursor, "null"),
        Start::True => push_word(out, cursor, "true"),
        Start::False => push_word(out, cursor, "false"),
        Start::String => {
            let text = cursor.string()?;
            push_string(out, cursor, text);
            Ok(())
        }
        Start::Number => push_number(out, cursor),
        Start::NotFinite => {
            let value = cursor.not_finite()?;
            push_double(out, value);
            Ok(())
        }
        Start::Object => {
            cursor.deeper(depth)?;
            cursor.pos += 1;
            cursor.blanks();
            out.push('{');
            if !cursor.eat(b'}') {
                loop {
                    let name = cursor.key()?;
                    push_string(out, cursor, name);
                    out.push(':');
                    push_value(out, cursor, depth + 1)?;
                    if !cursor.more(b'}')? {
                        break;
                    }
                    out.push(',');
                }
            }
            out.push('}');
            Ok(())
        }
        Start::Array => {
            cursor.deeper(depth)?;
            cursor.pos += 1;
            cursor.blanks();
            out.push('[');
            if !cursor.eat(b']') {
                loop {
                    push_value(out, cursor, depth + 1)?;
                    if !cursor.more(b']')? {
                        break;
                    }
                    out.push(',');
                }
            }
            out.push(']');
            Ok(())
        }
    }
}

fn push_word(out: &mut String, cursor: &mut Cursor<'_>, word: &'static str) -> Scan<()> {
    cursor.literal(word)?;
    out.push_str(word);
    Ok(())
}

fn push_string(out: &mut String, cursor: &Cursor<'_>, text: Text) {
    let mut content = String::new();
    push_content(&mut content, cursor, text);
    push_json_string(out, &content);
}

/// An integer with all its digits; a fraction as the double it is.
fn push_number(out: &mut String, cursor: &mut Cursor<'_>) -> Scan<()> {
    let number = cursor.number()?;
    let text =
        std::str::from_utf8(&cursor.text[number.start..number.end]).expect("numbers are ASCII");
    if number.integer {
        let zero = number.mantissa == 0 && number.digits == 0;
        out.push_str(if zero { "0" } else { text });
        return Ok(());
    }
    let value: f64 = text.parse().expect("the scan checked the number");
    push_double(out, value);
    Ok(())
}

fn push_double(out: &mut String, value: f64) {
    let quote = if value.is_finite() { "" } else { "\"" };
    out.push_str(quote);
    push_f64(out, value);
    out.push_str(quote);
}
