/*
 * docs/files.md, written from the file tables: `blockjobfs --list-files`, `make docs`. CI compares.
 */
#include <string.h>
#include "fs/files.h"

/* A '|' ends a cell of a table. */
static void put_cell(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			fputc('\\', out);
		fputc(*text, out);
	}
}

static void put_key(FILE *out, const struct key *key)
{
	fputc('`', out);
	if (key->kind != KEY_FLAG && !key->positional)
		fprintf(out, "%s=", key->name);
	put_cell(out, key->kind == KEY_FLAG ? key->name : key->shown);
	fputc('`', out);
}

static void put_row(FILE *out, const struct file *file)
{
	fprintf(out, "| %s%s | %04o | ", file->name, S_ISDIR(file->mode) ? "/" : "",
		file->mode & 07777);
	put_cell(out, file->help);
	fputs(" | ", out);
	for (const struct key *key = file->keys; key && key->name; key++) {
		put_key(out, key);
		fputc(' ', out);
	}
	fputs("|\n", out);
}

static void put_keys(FILE *out, const struct file *file)
{
	if (!file->write)
		return;
	fprintf(out, "\n`%s`:\n\n", file->name);
	for (const struct key *key = file->keys; key && key->name; key++) {
		fputs("- ", out);
		put_key(out, key);
		fprintf(out, " %s%s", key->help, key->required ? " (required)" : "");
		if (key->choices)
			fprintf(out, " (one of: %s)", key->choices);
		fputs("\n", out);
	}
}

static void put_table(FILE *out, const char *title, const struct file *table)
{
	fprintf(out, "\n## %s\n\n| file | mode | what it is | words of a command |\n", title);
	fputs("| --- | --- | --- | --- |\n", out);
	for (const struct file *file = table; file->name; file++)
		put_row(out, file);
	for (const struct file *file = table; file->name; file++)
		put_keys(out, file);
}

void files_reference(FILE *out)
{
	fputs("# The files\n"
	      "\n"
	      "Written by `make docs` from the tables in fs/files_*.c, which also make the tree "
	      "and parse the\n"
	      "commands: change them, not this page.\n"
	      "\n"
	      "A file with words of a command is a control file: one write(2) is one command. "
	      "Those without a\n"
	      "value to show read as their usage.\n",
	      out);
	put_table(out, "The root", root_files);
	put_table(out, "domains/&lt;domain&gt;/", domain_files);
	put_table(out, "domains/&lt;domain&gt;/disks/&lt;disk&gt;/", disk_files);
}
