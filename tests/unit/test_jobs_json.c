/* JSON that is written from front to back: it must read back as what was meant, whatever the strings hold. */
#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>
#include "jobs/json.h"
#include "qmp/value.h"

static void expect(struct text *text, const char *json)
{
	struct qmp_value *value;

	json_close(text, '}');
	cr_expect_str_eq(text_bytes(text), json);
	value = qmp_value_parse(text_bytes(text), text_length(text), NULL);
	cr_expect(value, "%s", text_bytes(text));
	qmp_value_free(value);
	text_free(text);
}

Test(json, commas_stand_between_and_nowhere_else)
{
	struct text *text = json_new();

	json_open(text, "empty", '[');
	json_close(text, ']');
	json_flag(text, "yes", true);
	json_texts(text, "some", (char *[]){ (char *)"x", NULL }, 2);
	json_texts(text, "none of them", NULL, 0);
	json_open(text, "list", '[');
	json_text(text, NULL, "[");
	json_text(text, NULL, NULL);
	json_open(text, NULL, '{');
	json_flag(text, "no", false);
	json_close(text, '}');
	json_number(text, NULL, 7);
	json_close(text, ']');
	json_text(text, "last", "{");
	json_text(text, "none", NULL);
	expect(text, "{\"empty\":[],\"yes\":true,\"some\":[\"x\",null],\"none of "
		     "them\":[],\"list\":[\"[\",null,{\"no\":false},7],"
		     "\"last\":\"{\",\"none\":null}");
	expect(json_new(), "{}");
}

Test(json, numbers_have_all_their_digits)
{
	struct text *text = json_new();

	json_number(text, "zero", 0);
	json_number(text, "ten", 10);
	json_number(text, "most", INT64_MAX);
	json_number(text, "least", INT64_MIN);
	expect(text, "{\"zero\":0,\"ten\":10,\"most\":9223372036854775807,"
		     "\"least\":-9223372036854775808}");
}

Test(json, strings_may_be_any_bytes)
{
	struct text *text = json_new();

	json_text(text, "empty", "");
	json_text(text, "marks", "\"\\/\b\f\n\r\t");
	json_text(text, "control", "a\001\037\177");
	json_text(text, "utf8", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	json_text(text, "broken", "\xff\xc3(\xed\xa0\x80\xe2\x82");
	expect(text, "{\"empty\":\"\",\"marks\":\"\\\"\\\\/"
		     "\\b\\f\\n\\r\\t\",\"control\":\"a\\u0001\\u001f\177\","
		     "\"utf8\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\","
		     "\"broken\":\"\xef\xbf\xbd\xef\xbf\xbd("
		     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
}

/* Every byte there is, one after the other: what is read back is what was written, but for what is no UTF-8. */
Test(json, reads_back_as_it_was)
{
	for (int byte = 1; byte < 256; byte++) {
		char string[] = { 'a', (char)byte, 'b', 0 };
		struct text *text = json_new();
		struct qmp_value *value;

		json_text(text, "key", string);
		json_close(text, '}');
		value = qmp_value_parse(text_bytes(text), text_length(text), NULL);
		cr_assert(value, "%d", byte);
		cr_expect_str_eq(qmp_value_text(value, "key", ""), byte < 128 ? string
									      : "a\xef\xbf\xbd"
										"b");
		qmp_value_free(value);
		text_free(text);
	}
}
