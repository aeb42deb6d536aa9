/* See code_symbol.h. */
#include "symbols/code_symbol.h"

#include <stdlib.h>
#include <string.h>

/* UTF-8 of a str, with `\udcXX` for a lone surrogate, which UTF-8 cannot say. Returns the size; writes where
 * `out` is not NULL. */
static size_t transcode(const pyprof_text *text, char *out) {
    size_t size = 0;
    for (size_t i = 0; i < text->length; i++) {
        Py_UCS4 c = PyUnicode_READ(text->kind, text->data, i);
        char bytes[8];
        size_t n = 0;
        if (c < 0x80) {
            bytes[n++] = (char)c;
        } else if (c < 0x800) {
            bytes[n++] = (char)(0xc0 | c >> 6);
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        } else if (c >= 0xd800 && c <= 0xdfff) {
            static const char digits[] = "0123456789abcdef";
            bytes[n++] = '\\';
            bytes[n++] = 'u';
            for (int shift = 12; shift >= 0; shift -= 4) {
                bytes[n++] = digits[c >> shift & 15];
            }
        } else if (c < 0x10000) {
            bytes[n++] = (char)(0xe0 | c >> 12);
            bytes[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            bytes[n++] = (char)(0xf0 | c >> 18);
            bytes[n++] = (char)(0x80 | (c >> 12 & 0x3f));
            bytes[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            bytes[n++] = (char)(0x80 | (c & 0x3f));
        }
        if (out != NULL) {
            memcpy(out + size, bytes, n);
        }
        size += n;
    }
    return size;
}

pyprof_symbol *pyprof_symbol_of_code(const pyprof_code_view *code) {
    /* An empty table would say that `lasti` is a line; kind 15 of the format says that there is none. */
    static const uint8_t no_lines[] = {0xff};
    const bool has_lines = code->linetable_size > 0;
    size_t qualname_size = transcode(&code->qualname, NULL);
    size_t filename_size = transcode(&code->filename, NULL);
    char *names = malloc(qualname_size + filename_size + 1);
    if (names == NULL) {
        return NULL;
    }
    transcode(&code->qualname, names);
    transcode(&code->filename, names + qualname_size);
    pyprof_symbol *symbol = pyprof_symbol_new(names, qualname_size, names + qualname_size, filename_size,
                                              code->first_line, has_lines ? code->linetable : no_lines,
                                              has_lines ? code->linetable_size : sizeof(no_lines));
    free(names);
    return symbol;
}
