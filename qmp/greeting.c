/*
 * The first words on a monitor; see greeting.h.
 */
#include "qmp/greeting.h"

#include <string.h>
#include "qmp/value.h"

bool greeting_is_one(const struct qmp_value *message)
{
	return qmp_value_is_object(qmp_value_get(message, "QMP"));
}

bool greeting_offers_oob(const struct qmp_value *message)
{
	const struct qmp_value *list = qmp_value_get(qmp_value_get(message, "QMP"), "capabilities");

	for (size_t i = 0; i < qmp_value_count(list); i++)
		if (!strcmp(qmp_value_text(qmp_value_item(list, i), NULL, ""), "oob"))
			return true;
	return false;
}

struct qmp_value *greeting_answer(bool oob)
{
	if (!oob)
		return NULL;
	return qmp_add_value(qmp_object(), "enable", qmp_append_text(qmp_array(), "oob"));
}
