#include "greet.h"
#include <stdio.h>
#include <unistd.h>

void greet(const char *name) {
    printf("%s, %s! (uid %d)\n", GREETING, name, (int)getuid());
}
