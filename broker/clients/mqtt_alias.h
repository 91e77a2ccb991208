/*
 * mqtt_alias: topic aliases of one MQTT 5 connection (3.3.2.3.4), those that the client set up and
 * those that we did.
 *
 *   Memory     Nothing before the first alias; then one allocation for the table and one for each
 * topic.
 */
#ifndef BROKER_MQTT_ALIAS_H
#define BROKER_MQTT_ALIAS_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "status.h"

/* Most aliases that we set up towards one client, however many it accepts. */
enum { ALIAS_CHOICES_MAX = 32 };

struct alias_names;
struct alias_choices;

/* Makes a table for aliases 1 to `maximum`. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status alias_names_create(uint16_t maximum, struct alias_names **out);
void alias_names_destroy(struct alias_names *names);

/* The client says what `alias` (1 to maximum) stands for from now on; `topic` is copied. */
MUST_USE enum status alias_names_set(struct alias_names *names, uint16_t alias, struct bytes topic);

/* The topic, borrowed; empty when the alias was not set up. */
struct bytes alias_names_get(const struct alias_names *names, uint16_t alias);

/* Makes an empty table of at most `maximum` choices. Errors: STATUS_NO_MEMORY. */
MUST_USE enum status alias_choices_create(uint16_t maximum, struct alias_choices **out);
void alias_choices_destroy(struct alias_choices *choices);

/*
 * The alias to send `topic` with; *is_known says that the client knows it already, so that the
 * topic itself is left out. 0: no alias is free. The first topics get the aliases and keep them:
 * replacing would cost a copy for each message when topics alternate.
 */
uint16_t alias_choices_of(struct alias_choices *choices, struct bytes topic, bool *is_known);

/* Takes back the alias chosen last by alias_choices_of, whose packet was not sent. */
void alias_choices_undo(struct alias_choices *choices);

#endif
