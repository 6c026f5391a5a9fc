"""What is told about members: attrition, counts, Table 1 and plots, with small cells hidden.

Who is a member belongs to `cohort.select`.
"""
